"""One run: settings, training, measurement, its files and its page."""

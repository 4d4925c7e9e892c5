"""What every part stands on: errors, configuration, registries, whole writes, locks, progress."""

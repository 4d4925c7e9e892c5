"""The only training loop, and what moves weights in it."""

"""Networks as pairs of pure functions."""

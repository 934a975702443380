"""Theorems as numerically checked claims."""

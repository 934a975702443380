"""Synthetic and real data-generating processes, shared by all families."""

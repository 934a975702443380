"""Structural causal models from several environments: one method, one file."""

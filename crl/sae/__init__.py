"""Sparse dictionaries: one method, one file."""

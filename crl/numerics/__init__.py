"""Numerical pieces that several families need: whitening, assignment, graph algebra."""

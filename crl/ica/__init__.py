"""Linear and nonlinear independent component analysis: one method, one file."""

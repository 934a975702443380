"""Recovery and stability metrics: pure functions of a readout and the truth."""

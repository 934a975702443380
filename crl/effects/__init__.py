"""Causal effects and predictions that hold under interventions and shifts."""

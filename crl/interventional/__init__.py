"""Latents and their causal graph behind an unknown mixing, from interventions."""

"""Running suites: what to compute, and where each result is kept."""

"""Looking at results: one page, drawn from a results folder without running its code."""

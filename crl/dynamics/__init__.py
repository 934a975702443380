"""Dynamical systems observed at stationarity or over time."""

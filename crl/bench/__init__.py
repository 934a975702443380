"""Suites, runner, store, report and command line."""

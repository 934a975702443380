"""The command line: suites are run, their results shown."""

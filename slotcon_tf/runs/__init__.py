"""Runs: what lasts from a command to its results, and survives a kill."""

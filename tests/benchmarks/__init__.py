"""Measurements: scripts that anyone can run, and that print the figures the documents state."""

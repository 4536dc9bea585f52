"""Saved maps as tests: what is the same, what is not, and why."""

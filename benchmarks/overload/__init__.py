"""Servers that are offered more than they can serve."""

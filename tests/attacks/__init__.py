"""Hostile code by kind, what it may use, and what is looked at on the host around it."""

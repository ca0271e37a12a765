"""Completions from servers that are started for a policy, and stopped when it is done."""

"""Spelling: a common text for what LaTeX, scans, full-width characters and Python write."""

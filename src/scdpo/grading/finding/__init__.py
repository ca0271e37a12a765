"""Where a solution's text states its answer."""

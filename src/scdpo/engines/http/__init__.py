"""Completions from servers: a client of `/v1/completions`, with routing and checks."""

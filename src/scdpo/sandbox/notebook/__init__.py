"""Runs blocks as notebook cells, and decides what each of them shows.

`cell` runs the code. Everything else is what code in a notebook expects around it: the pretty
printer, tracebacks, magics, `get_ipython()` and `display`. The notebook runs inside a session's
process and knows nothing of processes or isolation.
"""

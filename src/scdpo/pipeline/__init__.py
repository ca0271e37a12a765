"""A recipe and its stages, in a run folder that can be stopped and resumed."""

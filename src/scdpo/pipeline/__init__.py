"""A recipe and its stages in order, in a run folder that can be stopped and resumed."""

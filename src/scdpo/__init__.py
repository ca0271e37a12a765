"""Step-Controlled DPO (arXiv 2407.00782): sample, branch, pair, train and measure."""

__version__ = "0.1.0"

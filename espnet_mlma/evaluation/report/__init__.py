"""One HTML page about an experiment: its errors and its training."""

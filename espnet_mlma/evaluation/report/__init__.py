"""One HTML page about an experiment: what it gets wrong, and how it was trained."""

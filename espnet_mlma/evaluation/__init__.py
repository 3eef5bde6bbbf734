"""Scores, comparisons with other systems, and reports about experiments."""

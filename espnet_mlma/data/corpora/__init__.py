"""Readers of the recipe's speech corpora."""

"""Readers for the speech corpora of the recipe, and the writer of its data folders."""

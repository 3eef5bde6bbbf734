"""Prepare data for training: corpus readers and stages 1 to 5 of the recipe."""

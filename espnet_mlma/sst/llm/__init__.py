"""Run the translator's language model: weights, dialogue, cache, generation."""

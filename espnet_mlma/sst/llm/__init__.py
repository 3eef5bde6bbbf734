"""The language model: weights, dialogue, cache, generation."""

"""Make the translator's training data, from recordings to segments."""

"""Training data of the translator, from recordings to segments."""

"""Training of the translator."""

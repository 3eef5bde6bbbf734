"""Encode speech for the translator: encoders and adapter."""

"""Translate speech of any length while it is spoken."""

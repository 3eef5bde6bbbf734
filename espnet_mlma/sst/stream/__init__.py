"""Translate a talk while it is spoken."""

"""Readers of the formats in which people keep speech corpora of their own."""

"""Simultaneous translation of unbounded speech: chunks in, text out while the speaker goes on."""

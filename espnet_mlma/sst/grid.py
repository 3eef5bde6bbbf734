"""Define the chunk: 0.96 s of speech, 48 encoder frames, 12 LLM vectors."""

from __future__ import annotations

SAMPLE_RATE = 16000
CHUNK_SECONDS = 0.96
CHUNK_SAMPLES = 15360
CHUNK_FRAMES = 48
CHUNK_VECTORS = 12

"""The grid that speech is cut by: 0.96 s are a chunk of 48 encoder frames and 12 LLM vectors."""

from __future__ import annotations

SAMPLE_RATE = 16000
CHUNK_SECONDS = 0.96
CHUNK_SAMPLES = 15360
CHUNK_FRAMES = 48
CHUNK_VECTORS = 12

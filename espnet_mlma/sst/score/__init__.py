"""Score quality and latency of translated talks."""

"""Quality and latency of translated talks."""

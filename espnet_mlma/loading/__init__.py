"""Model files: read without running them, and strictly."""

"""Systems side by side: ours, other models on the same audio, and published figures."""

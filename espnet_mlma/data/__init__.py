"""From corpora to what ESPnet trains on: stages 1 to 5."""

"""Extend ESPnet: encoders, objectives, masks, preprocessors, protected training."""

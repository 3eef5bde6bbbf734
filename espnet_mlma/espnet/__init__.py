"""What ESPnet's registries, trainer and programs get from this package."""

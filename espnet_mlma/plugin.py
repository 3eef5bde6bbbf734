"""Registration of `conmamba` in ESPnet's tasks."""


def install() -> None:
    """Placeholder until the encoder lands in the next commit."""

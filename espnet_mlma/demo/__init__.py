"""A local web page: upload or record, read the text, play from a word, compare models."""

from espnet_mlma.demo.app import Limits, build, launch

__all__ = ["Limits", "build", "launch"]

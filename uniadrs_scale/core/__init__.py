"""The decisions of a run as frozen values, and the arithmetic on pixels. Pure."""

__version__ = "0.2.0"
"""Of the library, here because a plan holds it and imports point downwards."""

"""The decisions of a run as frozen values, and the arithmetic on pixels. Pure."""

__version__ = "0.2.0"
"""Version of the library. It is here because a plan holds it and imports point downwards."""

"""Anomaly maps of whole satellite scenes, zero-shot, at any scale."""

__version__ = "0.1.0"

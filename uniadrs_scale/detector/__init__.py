"""The network and its baselines: tiles in, scores out."""

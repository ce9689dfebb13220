"""Sweeps: a map for every scene of an archive, kept up to date."""

"""Figures of merit of a map."""

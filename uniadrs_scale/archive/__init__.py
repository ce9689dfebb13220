"""Sweeps: a map for every scene of an archive, kept up to date."""

from uniadrs_scale.archive.config import ArchiveConfig, load_config
from uniadrs_scale.archive.sweep import SweepReport, sweep

__all__ = ["ArchiveConfig", "SweepReport", "load_config", "sweep"]

"""Archives: every scene of a source has its map, and a timer keeps it so."""

from uniadrs_scale.archive.config import ArchiveConfig, load_config
from uniadrs_scale.archive.report import SweepReport
from uniadrs_scale.archive.runner import sweep

__all__ = ["ArchiveConfig", "SweepReport", "load_config", "sweep"]

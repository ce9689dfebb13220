"""The only package that knows Dask.

``build`` makes the tasks of a run, ``execute`` has them run, ``cluster`` starts, finds and checks
who runs them, ``lost`` is for when nobody does, ``shared`` what reaches every worker; ``figures``
judges a finished map.
"""

from uniadrs_scale.graph.build import scene_statistics, score_scene
from uniadrs_scale.graph.cluster import TlsFiles, connected, require_fit
from uniadrs_scale.graph.execute import Resources, executor, memory_limit
from uniadrs_scale.graph.figures import evaluate_map

__all__ = [
    "Resources",
    "TlsFiles",
    "connected",
    "evaluate_map",
    "executor",
    "memory_limit",
    "require_fit",
    "scene_statistics",
    "score_scene",
]

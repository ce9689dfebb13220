"""The only package that knows Dask.

``build`` makes the tasks of a run, ``execute`` has them run, ``resources`` says by whom.
``cluster`` starts, finds and checks a cluster, ``lost`` is for when nobody is left, ``shared`` is
what reaches every worker; ``figures`` judges a finished map.
"""

from uniadrs_scale.graph.build import scene_statistics, score_scene
from uniadrs_scale.graph.cluster import TlsFiles, connected, require_fit
from uniadrs_scale.graph.figures import evaluate_map
from uniadrs_scale.graph.resources import Resources, executor, memory_limit

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

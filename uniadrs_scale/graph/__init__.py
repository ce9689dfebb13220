"""The only package that knows Dask.

``build`` makes the tasks of a run, ``execute`` has them run, ``figures`` judges a finished map.
"""

from uniadrs_scale.graph.build import scene_statistics, score_scene
from uniadrs_scale.graph.execute import Resources, executor
from uniadrs_scale.graph.figures import evaluate_map

__all__ = ["Resources", "evaluate_map", "executor", "scene_statistics", "score_scene"]

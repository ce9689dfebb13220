"""The only package that knows Dask: ``build`` makes the tasks, ``execute`` has them run."""

from uniadrs_scale.graph.build import scene_statistics, score_scene
from uniadrs_scale.graph.execute import Resources, executor

__all__ = ["Resources", "executor", "scene_statistics", "score_scene"]

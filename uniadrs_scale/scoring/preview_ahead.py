"""The picture of a scene, read while the scene is scored: reading leaves room for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from uniadrs_scale.maps.layout import Layout
from uniadrs_scale.scenes.preview import scene_picture
from uniadrs_scale.scenes.rasters import FileScene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uniadrs_scale.core.contracts import SceneSource
    from uniadrs_scale.scenes.preview import ScenePicture


@contextmanager
def preview_ahead(source: SceneSource, *, wanted: bool) -> Iterator[Callable[[int], ScenePicture]]:
    """Yield the function that returns a picture of ``source``, of at most so many pixels.

    The picture of a wanted one is begun at once, in a thread of its own, and given up when the
    block ends. Other scenes than raster files wait: a graph in memory may be computed only once at
    a time, and a caller's progress bar would count it.
    """
    if not (wanted and isinstance(source, FileScene)):
        yield partial(scene_picture, source)
        return
    layout = Layout.of((source.info.height, source.info.width), 2)
    begun, stop = layout.side, threading.Event()
    with ThreadPoolExecutor(1) as pool:
        picture = pool.submit(scene_picture, source, begun, stop)
        try:
            yield lambda side: picture.result() if side == begun else scene_picture(source, side)
        finally:
            stop.set()

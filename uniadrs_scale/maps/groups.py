"""Zarr groups that hold a map: opened, with their layers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import zarr

from uniadrs_scale.core.layers import SCORE, Layer
from uniadrs_scale.errors import PlanError, StoreError
from uniadrs_scale.maps.frame import Y_X
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from pathlib import Path


def layers_in(said: Any, name: str) -> tuple[Layer, ...]:
    """Return the layers that a map's attribute or tag ``layers`` says; by default the score.

    Raises:
        StoreError: It does not describe layers.
    """
    try:
        values = json.loads(said) if isinstance(said, str) else said
        return (SCORE,) if values is None else tuple(map(Layer.from_json, values)) or (SCORE,)
    except (KeyError, TypeError, ValueError, AttributeError, PlanError) as error:
        raise StoreError(
            f"The attribute 'layers' of '{name}' does not describe layers ({error}). Score into a "
            "new store."
        ) from None


def require_score(layers: tuple[Layer, ...], name: str) -> int:
    """Return the position of the score among layers.

    Raises:
        StoreError: The map has no score.
    """
    if SCORE in layers:
        return layers.index(SCORE)
    raise StoreError(
        f"'{name}' has no anomaly score: its layers are {', '.join(x.name for x in layers)}. Pass "
        "a map of scores."
    )


class NotAStoreError(StoreError):
    """Path without a store."""


def open_group(path: str | Path | Place) -> zarr.Group:
    """Return the group at ``path``, read-only, that has an array of scores."""
    place = Place.of(path)
    source = place.zarr(read_only=True)
    try:
        group = zarr.open_group(source, mode="r", zarr_format=3, use_consolidated=False)
    except StoreError:  # a server that does not answer has not said no
        raise
    except (OSError, ValueError, KeyError):
        if place.local is None or not place.exists():
            raise NotAStoreError(f"Score store '{path}' does not exist. Check the path.") from None
        raise not_a_store(path, "no Zarr group") from None
    for layer in layers_in(group.attrs.get("layers"), str(path)):
        score = group.get(layer.name)
        if not isinstance(score, zarr.Array):
            raise not_a_store(path, f"no array '{layer.name}'")
        if score.ndim != Y_X or str(score.dtype) != layer.dtype:
            raise not_a_store(path, f"'{layer.name}' is {score.dtype} with {score.ndim} axes")
    return group


def not_a_store(path: str | Path | Place, met: str) -> StoreError:
    """Return the error of a path with something else."""
    return NotAStoreError(
        f"'{path}' is not a score store ({met}): it needs an array '{SCORE.name}' (y, x) of "
        f"{SCORE.dtype}. Pass what `score` wrote; to write, choose another output path, or remove "
        "it yourself."
    )

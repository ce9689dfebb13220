"""Zarr groups that hold a map: opened, with their layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import zarr

from uniadrs_scale.core.layers import SCORE, Layer
from uniadrs_scale.errors import PlanError, StoreError
from uniadrs_scale.maps.frame import Y_X
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from pathlib import Path


def layers_in(group: zarr.Group) -> tuple[Layer, ...]:
    """Return the layers of the map in ``group``, as its attributes say; by default the score.

    Raises:
        StoreError: The attributes do not describe layers.
    """
    try:
        said = cast("list[dict[str, Any]]", group.attrs.get("layers"))
        return (SCORE,) if said is None else tuple(map(Layer.from_json, said)) or (SCORE,)
    except (KeyError, TypeError, ValueError, AttributeError, PlanError) as error:
        raise StoreError(
            f"The attribute 'layers' of '{group.store_path}' does not describe layers ({error}). "
            "Score into a new store."
        ) from None


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
    for layer in layers_in(group):
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

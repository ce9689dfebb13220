"""Checks of source and sink before anything is decided. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uniadrs_scale.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from uniadrs_scale.storage.places import Place


def require_items(listed: int, names: AbstractSet[str]) -> None:
    """Raise ArchiveError if a source lists nothing, but had the scenes ``names``."""
    if names and not listed:
        raise ArchiveError(
            f"The source is empty, but {len(names)} of its scenes have maps or were tried. Is its "
            "disk or share mounted? If it is to be empty, choose another 'output.folder' for new "
            "scenes."
        )


def require_same_archive(
    source: str,
    names: AbstractSet[str],
    known: AbstractSet[str],
    runs: Sequence[Mapping[str, Any]],
    sink: Place,
) -> None:
    """Raise ArchiveError if the sink holds the maps of another archive.

    An archive may move: then most of its scenes are known.

    Args:
        source: The source of this sweep.
        names: Names of its scenes.
        known: Names of the scenes in the sink.
        runs: Earlier sweeps, the latest first.
        sink: The folder or prefix of maps.
    """
    before = next((run["source"] for run in runs if run.get("source")), source)
    few = 2 * len(names & known) < min(len(names), len(known))
    if before != source and few:
        raise ArchiveError(
            f"'{sink}' holds the maps of another archive: its source is '{before}', not "
            f"'{source}', and they share {len(names & known)} of {len(known)} scenes. Choose "
            "another 'output.folder'. If this one is to change its source, remove "
            f"'{sink}/.sweep/ledger.sqlite', which holds no maps."
        )

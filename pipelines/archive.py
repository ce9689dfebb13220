"""An archive, again and again: point a timer at this script, or at 'uniadrs-scale sweep'.

    uniadrs-scale sweep --init archive.yaml     # writes a commented description; edit it
    python pipelines/archive.py archive.yaml

Each run gives every new or changed scene its map and leaves the others alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pystac

import uniadrs_scale as us


def main() -> int:
    """Say what is to do, do it, and list where the strongest anomalies are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="YAML description of the archive")
    parser.add_argument("--top", type=int, default=5, help="scenes to list")
    arguments = parser.parse_args()

    # Relative paths in the description count from its folder, not from where this was started.
    config = us.load_config(arguments.archive)

    # A dry run decides, and writes nothing.
    for decision in us.sweep(config, dry_run=True).decisions:
        if decision.action == "score":
            print(f"to do: {decision.name} ({decision.reason})")

    # One cluster for all scenes. A scene that fails never stops the next; the same command
    # resumes what was interrupted; a second one at the same time is refused (us.BusyError).
    report = us.sweep(config)
    print(report.text())

    # The maps are an ordinary STAC collection: any client reads it. In a bucket, pystac needs to be
    # told how (its StacIO), so here only a folder is looked through.
    sink = config.output.folder
    collection = sink.child("collection.json")
    if sink.local is None:
        print(f"maps: {collection}")
    elif collection.exists():
        items = list(pystac.Collection.from_file(str(collection)).get_items())
        items.sort(key=lambda item: item.properties["uniadrs:highest_score"] or 0, reverse=True)
        for item in items[: arguments.top]:
            score = item.properties["uniadrs:highest_score"]
            print(f"{item.id}: highest score {'none' if score is None else f'{score:.3f}'}")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())

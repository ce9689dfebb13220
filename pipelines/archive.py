"""Keep the maps of an archive up to date: let a timer start this or 'uniadrs-scale sweep'.

    uniadrs-scale sweep --init archive.yaml     # writes a commented description; edit it
    python pipelines/archive.py archive.yaml

Each run makes maps of the new and changed scenes. It does not touch other maps.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pystac

import uniadrs_scale as us


def main() -> int:
    """List the scenes to score, score them, and list those with the strongest anomalies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="YAML description of the archive")
    parser.add_argument("--top", type=int, default=5, help="scenes to list")
    arguments = parser.parse_args()

    # Relative paths in the description start at its folder, not at the working directory.
    config = us.load_config(arguments.archive)

    # A dry run decides, and does not write.
    for decision in us.sweep(config, dry_run=True).decisions:
        if decision.action == "score":
            print(f"to do: {decision.name} ({decision.reason})")

    # One cluster for all scenes. A scene that fails does not stop the next; the same command
    # resumes an interrupted sweep; a second one at the same time is refused (us.BusyError).
    report = us.sweep(config)
    print(report.text())

    # The maps are an ordinary STAC collection for any client. For a bucket, pystac needs its own
    # StacIO, so here only folders are listed.
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
    try:
        sys.exit(main())
    except us.UniadrsScaleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(75 if isinstance(error, us.BusyError) else 2)  # as 'uniadrs-scale sweep'

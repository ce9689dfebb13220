"""What an import loads: time is what libraries cost, and those are counted, not the clock."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import uniadrs_scale as us

HEAVY = {"torch", "dask", "distributed", "xarray", "rasterio", "zarr", "numba", "scipy", "pandas"}
HEAVY |= {"pystac", "matplotlib", "rioxarray", "pyproj", "numpy"}


def loaded(code: str) -> set[str]:
    """Top-level modules of an interpreter of its own after ``code``."""
    report = "import json, sys; print(json.dumps(sorted(m for m in sys.modules if '.' not in m)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_no_library() -> None:
    assert loaded("import uniadrs_scale as us; us.SceneError; dir(us)") & HEAVY == set()


@pytest.mark.parametrize(
    "command", ["", "score ", "plan ", "sweep ", "info ", "demo ", "cog ", "targets ", "report "]
)
def test_help_loads_no_library(command: str) -> None:
    arguments = ["uniadrs-scale", *command.split(), "--help"]
    code = (
        f"import sys; sys.argv = {arguments!r}\nfrom uniadrs_scale.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code"
    )
    assert loaded(code) & HEAVY == set()


@pytest.mark.parametrize(
    "first",
    [
        "",
        "import uniadrs_scale.core.plan",
        "import uniadrs_scale.scoring.score, uniadrs_scale.runtime.tasks",
    ],
)
def test_plan_and_score_are_functions_whatever_was_imported_before(first: str) -> None:
    code = (
        f"{first}\nimport uniadrs_scale as us\nfrom uniadrs_scale import plan, score\n"
        "assert us.plan is plan and us.score is score and callable(plan) and callable(score)\n"
        "from uniadrs_scale.core.plan import ScorePlan\nassert us.ScorePlan is ScorePlan\n"
        "assert us.plan is plan and us.score is score"
    )
    assert "torch" in loaded(code)


def test_every_public_name_exists() -> None:
    assert all(getattr(us, name) is not None for name in us.__all__)
    assert set(us.__all__) <= set(dir(us))
    with pytest.raises(AttributeError, match="module 'uniadrs_scale' has no attribute 'nothing'"):
        us.nothing  # noqa: B018

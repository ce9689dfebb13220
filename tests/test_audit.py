"""The audit of dependencies: a known vulnerability fails CI; silence is not taken for health."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[1] / ".ci" / "audit"
FAKE = """#!{python}
import sys
report = {report!r}
if report:
    open(sys.argv[sys.argv.index("--output") + 1], "w").write(report)
sys.exit({code})
"""


def package(name: str, *vulnerabilities: str) -> dict:
    return {"name": name, "version": "1.0", "vulns": [{"id": v} for v in vulnerabilities]}


SKIPPED = {"name": "torch", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "fails", "said"),
    [
        ([package("numpy"), SKIPPED], 0, "1 of 2 pinned packages audited, vulnerable: none"),
        ([package("numpy", "PYSEC-1", "CVE-2"), package("zarr")], 1,
         "vulnerable: numpy 1.0 (PYSEC-1, CVE-2)"),
        ([SKIPPED], 0, "NOTHING WAS AUDITED: this index serves no vulnerability data"),
        (None, 0, "NOTHING WAS AUDITED: pip-audit gave no report"),
    ],
    ids=["sound", "vulnerable", "no data", "no network"],
)  # fmt: skip
def test_the_audit_says_what_it_has_seen(
    tmp_path: Path, packages: list | None, fails: int, said: str
) -> None:
    report = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    fake = tmp_path / "pip-audit"
    # Like the real one, which also ends with 1 where it could not ask.
    fake.write_text(
        FAKE.format(python=sys.executable, report=report, code=int(fails or not report))
    )
    fake.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, str(AUDIT)], env=os.environ | {"PATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, said in done.stdout) == (fails, True), done.stdout + done.stderr

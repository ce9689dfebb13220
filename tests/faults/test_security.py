"""What a hostile file, name or neighbour could try."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
from pathlib import Path

import psutil
import pytest
import torch
from archives import stac_item as catalog_item
from archives import write_archive, write_catalog
from hypothesis import given
from hypothesis import strategies as st
from products import stac_item

import uniadrs_scale as us
from uniadrs_scale.archive.config import load_config
from uniadrs_scale.archive.decide import safe_name
from uniadrs_scale.detector.rx import GlobalRX

ROOT = Path(__file__).parents[2]
OURS = ("uniadrs_scale", "model", "pipelines", "benchmarks")


class Malicious:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, suffix: str, zipped: bool
) -> None:
    trace, path = tmp_path / "trace", tmp_path / f"weights{suffix}"
    if zipped:
        torch.save({"model": Malicious(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(us.WeightsError, match="weights"):
        us.Detector.load(path, device="cpu")
    assert not trace.exists()
    plain = path.rename(tmp_path / "weights.bin")  # torch goes by the name, too
    torch.load(plain, weights_only=False) if zipped else pickle.loads(plain.read_bytes())
    assert trace.exists(), "the pickle would have done nothing anyway: the test is blind"


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """(dotted name, call) of every call in a file."""
    found = (n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call))
    return [(ast.unparse(call.func), call) for call in found]


FORBIDDEN = re.compile(
    r"(builtins\.)?(eval|exec|compile|__import__)|os\.(system|popen)|subprocess\.getoutput"
    r"|yaml\.(unsafe_|full_)?load(_all)?|marshal\.loads?|dill\.loads?|joblib\.load"
)


def fault(name: str, call: ast.Call) -> str:
    """Why a call must not be in the tree; empty where it may."""
    named = {key.arg: ast.unparse(key.value) for key in call.keywords}
    if FORBIDDEN.fullmatch(name):
        return name
    if named.get("shell", "False") != "False":
        return "shell"
    if name == "torch.load" and named.get("weights_only") != "True":
        return "torch.load without weights_only"
    if name in ("np.load", "numpy.load") and named.get("allow_pickle", "False") != "False":
        return "allow_pickle"
    return ""


def test_no_code_from_data_and_no_shell() -> None:
    files = [path for folder in OURS for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 60
    found = {
        f"{path.relative_to(ROOT)}: {fault(name, call)}"
        for path in files
        for name, call in calls(path)
        if fault(name, call)
    }
    assert not found


LINES = ["eval(x)", "subprocess.run(x, shell=True)", "yaml.load(x)", "torch.load(x)",
         "os.system(x)", "np.load(x, allow_pickle=True)"]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_the_search_is_not_blind(line: str) -> None:
    (call,) = (n for n in ast.walk(ast.parse(line)) if isinstance(n, ast.Call))
    assert fault(ast.unparse(call.func), call)


def test_pickles_are_read_from_our_own_processes_only() -> None:
    readers = {path.name for path in (ROOT / "uniadrs_scale").rglob("*.py")
               if any(name.startswith(("pickle.", "cloudpickle.load"))
                      for name, _ in calls(path))}  # fmt: skip
    # what the driver sent to its workers, as Dask itself does
    assert readers <= {"worker.py", "cluster.py"}


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "archive.yaml"
    path.write_text(f"source: !!python/object/apply:os.mkdir ['{trace}']\n")
    with pytest.raises(us.ArchiveError):
        load_config(path)
    assert not trace.exists()


HOSTILE = [
    "../../x", "/etc/passwd", "..", ".", "", "a/../../b", "x\0y", "~/x", "C:\\x", "..\\..\\x",
    "é" * 400, "\udcff", "x\n../y", "con", ".hidden", "x.json", "collection.json",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_in_their_folder(name: str) -> None:
    check_name(name)


@given(st.text())
def test_any_name_stays_in_its_folder(name: str) -> None:
    check_name(name)


def check_name(name: str) -> None:
    safe = safe_name(name)
    assert Path(os.path.normpath(f"/out/{safe}")).parent == Path("/out")
    assert "/" not in safe
    assert "\0" not in safe
    assert not safe.startswith(".")
    assert len(os.fsencode(safe)) < 200
    assert safe_name(safe) == safe


def test_a_sweep_of_hostile_ids_writes_inside_its_folder(
    tmp_path: Path, tiny_weights: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    ids = ["../../escaped", "/escaped", "..", "a/b"]
    catalog = write_catalog(home, [catalog_item(name) for name in ids], pixels=False)
    archive = write_archive(
        home, source={"type": "stac", "href": str(catalog)}, detector={"weights": str(tiny_weights)}
    )
    before = {p for p in tmp_path.rglob("*") if home not in p.parents}
    report = us.sweep(archive)
    assert len(report.failed) == len(ids), "their pixels do not exist"
    assert {p for p in tmp_path.rglob("*") if home not in p.parents} == before
    assert not Path("/escaped").exists()


def test_names_in_a_scenes_metadata_name_no_file(tmp_path: Path) -> None:
    (tmp_path / "item").mkdir()
    item = stac_item(tmp_path / "item")
    document = json.loads(item.read_text())
    document["id"] = "../../escaped"
    document["properties"]["platform"] = "/escaped"
    document["assets"]["blue"]["eo:bands"][0] |= {"name": "../x", "common_name": "/y"}
    del document["assets"]["blue-jp2"]  # a second copy of the band that is renamed
    item.write_text(json.dumps(document))
    out = tmp_path / "a" / "b"
    out.mkdir(parents=True)
    scene = us.open_scene(item)
    before = {p for p in tmp_path.rglob("*") if out not in p.parents}
    sizes = {"preset": "single-band", "tile": 32, "chunk": 64}
    us.score(scene, out / "map.zarr", scheduler="sync", detector=GlobalRX(), **sizes)
    assert {p for p in tmp_path.rglob("*") if out not in p.parents} == before
    names = ["map.png", "map.qml", "map.zarr", "map.zarr.run.json"]
    assert sorted(p.name for p in out.iterdir()) == names


def test_cluster_and_dashboard_listen_on_loopback_only(cluster) -> None:
    """Every socket of this process and its workers that waits for connections."""
    addresses = [w["nanny"] for w in cluster.scheduler_info(n_workers=-1)["workers"].values()]
    assert addresses
    assert all("127.0.0.1" in address for address in addresses)
    me = psutil.Process()
    waiting = [
        connection.laddr
        for process in [me, *me.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(waiting) >= 4, "scheduler, its page, and two nannies or workers at least"
    assert {place.ip for place in waiting} <= {"127.0.0.1", "::1"}

"""Files that are read, masked or placed wrongly without a word unless a reader looks closely."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

import uniadrs_scale as us

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

H, W = 20, 30
X, Y = 4e5 + 10 * (np.arange(W) + 0.5), 6e6 - 10 * (np.arange(H) + 0.5)


def pixels(bands: int = 3, dtype: str = "int16") -> NDArray[np.generic]:
    return np.random.default_rng(bands).integers(100, 4000, (bands, H, W)).astype(dtype)


@pytest.mark.parametrize(
    ("data", "place"),
    [("{}", "{}"), ("SWATHS/{}/Data Fields", "SWATHS/{}/Geolocation Fields")],
)
def test_places_and_classes_come_from_the_nearest_group(
    tmp_path: Path, data: str, place: str
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for shift, name in enumerate(("S1", "S2")):
            rows, cols = np.mgrid[:H, :W] * 0.01 + 50 * shift
            file[f"{data.format(name)}/image"] = pixels(1)[0]
            file[f"{place.format(name)}/Latitude"] = rows
            file[f"{place.format(name)}/Longitude"] = cols
            classes = np.zeros((H, W), "u1")
            classes[shift] = 1
            file[f"{data.format(name)}/quality"] = classes
            said = {"flag_values": np.array([0, 1], "u1"), "flag_meanings": "clear cloud"}
            file[f"{data.format(name)}/quality"].attrs.update(said)
    for shift, name in enumerate(("S1", "S2")):
        variable = f"{data.format(name)}/image"
        scene = us.open_scene(tmp_path / "a.h5", variable=variable, mask="cloud")
        assert float(scene.latitude[0, 0]) == 50 * shift
        assert np.flatnonzero(~scene.valid.values.all(axis=1)).tolist() == [shift]

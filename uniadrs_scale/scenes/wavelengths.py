"""Wavelengths of the bands of an array, in nanometres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

MICRONS = {"um", "µm", "μm", "micrometer", "micrometers", "micron", "microns"}
"""Units of wavelengths in arrays of users; files give nanometres."""


def wavelengths_of(array: xr.DataArray) -> tuple[float, ...]:
    """Return the centres of bands [nm] if the array has them."""
    centres = array.coords.get("wavelength")
    if centres is None or centres.dims != ("band",) or centres.dtype.kind not in "iuf":
        return ()
    microns = str(centres.attrs.get("units", "nm")).lower() in MICRONS
    return tuple((centres.values.astype(np.float64) * (1000 if microns else 1)).tolist())

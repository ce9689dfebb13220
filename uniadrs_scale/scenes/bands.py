"""The choice of bands: by number, name or asset, each of them once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.products.metadata import MOST
from uniadrs_scale.storage.urls import uri_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uniadrs_scale.scenes.products.metadata import Band, Options, Product


def selected_bands(product: Product, options: Options) -> list[Band]:
    """Return the bands of a product that are scored: those the caller names, or the usual ones.

    Raise SceneError if one does not exist or is named twice, or if no band is left.
    """
    if options.bands is None:
        usual = [band for band in product.bands if band.default]
        if not usual:
            raise SceneError(
                f"'{product.name}' has no band of measurements: its bands "
                f"({', '.join(band.name for band in product.bands[:MOST])}) are marked as bad, or "
                "as pictures or quality. Name those to score as bands."
            )
        return usual
    asked = options.bands or select((), (), product.name)
    selected: list[Band] = []
    for wanted in asked:
        others = [band for band in bands_called(wanted, product) if band not in selected]
        if not others:
            raise _twice(wanted, product.name)
        selected += others
    return selected


def bands_called(wanted: int | str, product: Product) -> list[Band]:
    """Return the bands of an asset, or the band of that number or name.

    Raise SceneError if the band does not exist, or several have the name.
    """
    names = [(band.name, *band.aliases) for band in product.bands]
    asset = [band for band in product.bands if band.asset == wanted != ""]
    return asset or [product.bands[k] for k in select([wanted], names, product.name, product.bands)]


def select(
    wanted: Sequence[int | str],
    names: Sequence[Sequence[str]],
    source: str,
    bands: Sequence[Band] = (),
) -> list[int]:
    """Return positions of the wanted bands, by number from 1 or by any of their names.

    Raise SceneError if one does not exist, several of ``bands`` have its name, one is
    wanted twice, or none is wanted.
    """
    selected = []
    for band in wanted:
        own = [k for k, group in enumerate(names) if band == group[0]]
        called = own or [k for k, group in enumerate(names) if band in group]
        # Assets hold bands again: as pictures, and in other resolutions.
        likely = [k for k in called if not bands or bands[k].default or not bands[k].asset]
        found = likely or called[:1]
        number = int(band) - 1 if str(band).isdecimal() else -1
        if 0 <= number < len(names) and (not found or number in found):
            found = [number]
        if len(found) > 1:
            places = [f"{k + 1}{f' ({uri_name(bands[k].uri)})' if bands else ''}" for k in found]
            raise SceneError(
                f"Several bands of '{source}' are called '{band}': {', '.join(places[:MOST])}. "
                "Pass the number of the one that is meant."
            )
        if not found:
            few = len(names) <= MOST
            known = ", ".join(group[0] for group in names) if few else f"1 to {len(names)}"
            raise SceneError(
                f"Band '{band}' is not one of '{source}', which has {known}. "
                "Name these, or count from 1."
            )
        if found[0] in selected:
            raise _twice(band, source)
        selected += found
    if not selected:
        raise SceneError(f"No bands of '{source}' are selected. Select at least one.")
    return selected


def _twice(band: int | str, source: str) -> SceneError:
    return SceneError(f"Band '{band}' of '{source}' is selected twice. Name each band once.")

"""Inputs of real products that were read, masked or placed wrongly without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import shapely
from test_rasters import UTM, H, W, noise, write

import uniadrs_scale as us
from uniadrs_scale.scenes.headers import Header

if TYPE_CHECKING:
    from pathlib import Path

TIL = 'bandId = "P";\nnumTiles = 2;\ntileUnits = "Pixels";\n{}END;\n'
TILE = (
    'BEGIN_GROUP = TILE_{0}\n\tfilename = "T{0}.TIF";\n\tULColOffset = {1};\n\tULRowOffset = 0;\n'
    "\tLRColOffset = {2};\n\tLRRowOffset = {3};\nEND_GROUP = TILE_{0}\n"
)
IMD = f'version = "28.4";\nnumRows = {H};\nnumColumns = {W};\nbitsPerPixel = 16;\nEND;\n'
DIMAP = f"""<Dimap_Document><Metadata_Identification>
<METADATA_FORMAT version="2.0">DIMAP</METADATA_FORMAT></Metadata_Identification>
<Processing_Information/><Raster_Data>
<Data_Access><DATA_FILE_FORMAT>image/tiff</DATA_FILE_FORMAT><Data_Files>
<Data_File tile_R="1" tile_C="1"><DATA_FILE_PATH href="T1.TIF"/></Data_File>
<Data_File tile_R="1" tile_C="2"><DATA_FILE_PATH href="T2.TIF"/></Data_File>
</Data_Files></Data_Access><Raster_Dimensions><NROWS>{H}</NROWS><NCOLS>{W}</NCOLS>
<NBANDS>1</NBANDS><Tile_Set><NTILES>2</NTILES><Regular_Tiling>
<NTILES_SIZE nrows="{H}" ncols="{W // 2}"/><NTILES_COUNT ntiles_R="1" ntiles_C="2"/>
</Regular_Tiling></Tile_Set></Raster_Dimensions><Raster_Encoding><DATA_TYPE>INTEGER</DATA_TYPE>
<NBITS>16</NBITS><SIGN>UNSIGNED</SIGN></Raster_Encoding></Raster_Data></Dimap_Document>"""


@pytest.mark.parametrize("name", ["P.TIL", "DIM_P.XML"])
def test_products_of_several_tiles_of_which_one_is_lost(tmp_path: Path, name: str) -> None:
    """GDAL makes a VRT of the tiles: the second read of a lost one is zeros and no error."""
    half = W // 2
    tiles = TILE.format(1, 0, half - 1, H - 1) + TILE.format(2, half, W - 1, H - 1)
    (tmp_path / "P.TIL").write_text(TIL.format(tiles))
    (tmp_path / "P.IMD").write_text(IMD)
    (tmp_path / "DIM_P.XML").write_text(DIMAP)
    for k, cols in ((1, np.s_[:half]), (2, np.s_[half:])):
        place = UTM @ UTM.translation(cols.start or 0, 0)
        write(tmp_path / f"T{k}.TIF", noise(1)[:, :, cols], transform=place)
    scene = us.open_scene(tmp_path / name)
    np.testing.assert_array_equal(scene, noise(1))
    stamp = Header.of(str(tmp_path / name)).stamp
    write(tmp_path / "T2.TIF", noise(1, base=2000)[:, :, half:])
    assert Header.of(str(tmp_path / name)).stamp != stamp
    (tmp_path / "T2.TIF").unlink()
    with pytest.raises(us.SceneError, match=r"T2.TIF', which cannot be opened \("):
        us.open_scene(tmp_path / name)


def test_an_index_of_tiles_is_refused(tmp_path: Path) -> None:
    """GDAL reads zeros if a tile is lost, and does not say which tiles there are."""
    tile = write(tmp_path / "a.tif", noise(1))
    box = shapely.box(4e5, 6e6 - 10 * H, 4e5 + 10 * W, 6e6)
    index = gpd.GeoDataFrame({"location": [str(tile)]}, geometry=[box], crs=32633)
    index.to_file(tmp_path / "a.gti.gpkg")
    with pytest.raises(us.SceneError, match="is an index of tiles"):
        us.open_scene(tmp_path / "a.gti.gpkg")

"""Small, faithful products of each kind, written from their public format descriptions.

Each function writes one product into a folder and returns what a user would pass. Pixels are
``ramp``: a known value everywhere, different in every band.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING

import h5py
import numpy as np
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

WEST, NORTH = 500_000.0, 5_000_000.0
CRS = "EPSG:32632"


def ramp(band: int, height: int, width: int, dtype: str = "uint16") -> NDArray[np.generic]:
    """1000 a band plus row and column, so that every mix-up shows."""
    rows, cols = np.mgrid[:height, :width]
    return (1000 * band + 10 * rows + cols + 1).astype(dtype)


def write_raster(path: Path, pixels: NDArray[np.generic], metres: float, **profile: object) -> Path:
    """A raster of (y, x) or (band, y, x) pixels on the common place of all fixtures."""
    cube = pixels if pixels.ndim == 3 else pixels[None]
    settings = {
        "driver": "GTiff", "count": len(cube), "height": cube.shape[1], "width": cube.shape[2],
        "dtype": cube.dtype, "crs": CRS, "transform": Affine(metres, 0, WEST, 0, -metres, NORTH),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **settings | profile) as file:
            file.write(cube)
    return path


S2_BANDS = {
    "B01": (60, 442.7), "B02": (10, 492.7), "B03": (10, 559.8), "B04": (10, 664.6),
    "B05": (20, 704.1), "B06": (20, 740.5), "B07": (20, 782.8), "B08": (10, 832.8),
    "B8A": (20, 864.7), "B09": (60, 945.1), "B10": (60, 1373.5), "B11": (20, 1613.7),
    "B12": (20, 2202.4),
}  # fmt: skip


def sentinel2(folder: Path, *, level: str = "2A", side: int = 120) -> Path:
    """A SAFE folder (product specification S2-PDGS-TAS-DI-PSD 14.9): JPEG 2000 images, MTD XML.

    L2A has 10, 20 and 60 m folders with repeats, and a scene classification: a cloud in its upper
    left quarter, no data in its last rows and columns.
    """
    name = f"S2A_MSIL{level}_20240929T101759_N0511_R065_T32TQM_20240929T150000"
    safe = folder / f"{name}.SAFE"
    granule = f"GRANULE/L{level}_T32TQM_A048437_20240929T102000"
    files = []
    for number, (band, (native, _)) in enumerate(S2_BANDS.items(), start=1):
        if level == "2A" and band == "B10":
            continue
        for metres in (10, 20, 60) if level == "2A" else (native,):
            if metres < native:
                continue
            n = side * 10 // metres
            stem = f"{granule}/IMG_DATA/T32TQM_20240929T101759_{band}"
            if level == "2A":
                stem = stem.replace("IMG_DATA/", f"IMG_DATA/R{metres}m/") + f"_{metres}m"
            _write_jp2(safe / f"{stem}.jp2", ramp(number, n, n), metres)
            files.append(stem)
    if level == "2A":
        n = side // 2
        classes = np.full((n, n), 4, np.uint8)
        classes[: n // 2, : n // 2], classes[-2:], classes[:, -2:] = 9, 0, 0
        stem = f"{granule}/IMG_DATA/R20m/T32TQM_20240929T101759_SCL_20m"
        _write_jp2(safe / f"{stem}.jp2", classes, 20)
        files += [stem, stem.replace("SCL", "AOT")]
    images = "".join(f"<IMAGE_FILE>{file}</IMAGE_FILE>" for file in files)
    spectra = "".join(
        f'<Spectral_Information bandId="{k}" physicalBand="{band.replace("B0", "B")}">'
        f"<RESOLUTION>{metres}</RESOLUTION><Wavelength><MIN unit='nm'>{centre - 10}</MIN>"
        f"<MAX unit='nm'>{centre + 10}</MAX><CENTRAL unit='nm'>{centre}</CENTRAL></Wavelength>"
        "</Spectral_Information>"
        for k, (band, (metres, centre)) in enumerate(S2_BANDS.items())
    )
    root = f"n1:Level-{level}_User_Product"
    (safe / f"MTD_MSIL{level}.xml").write_text(
        f'<?xml version="1.0" encoding="UTF-8"?><{root} '
        f'xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd">'
        f"<n1:General_Info><Product_Info><PRODUCT_START_TIME>2024-09-29T10:17:59.024Z"
        f"</PRODUCT_START_TIME><PRODUCT_URI>{name}.SAFE</PRODUCT_URI>"
        '<Datatake datatakeIdentifier="GS2A"><SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME>'
        "<DATATAKE_SENSING_START>2024-09-29T10:17:59.024Z</DATATAKE_SENSING_START></Datatake>"
        f"<Product_Organisation><Granule_List><Granule>{images}</Granule></Granule_List>"
        "</Product_Organisation></Product_Info><Product_Image_Characteristics>"
        f"<Spectral_Information_List>{spectra}</Spectral_Information_List>"
        f"</Product_Image_Characteristics></n1:General_Info></{root}>"
    )
    return safe


def _write_jp2(path: Path, pixels: NDArray[np.generic], metres: float) -> None:
    options = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    write_raster(path, pixels, metres, **options)


LANDSAT = "LC08_L2SP_195028_20200507_20200820_02_T1"


def landsat(folder: Path, *, n: int = 60) -> Path:
    """A Collection 2 level 2 folder (LSDS-1619): GeoTIFFs without nodata tags, MTL text.

    QA_PIXEL has fill in its first four columns and cloud (bit 3) in rows 10 to 19.
    """
    product = folder / LANDSAT
    for number in range(1, 8):
        write_raster(product / f"{LANDSAT}_SR_B{number}.TIF", ramp(number, n, n), 30)
    write_raster(product / f"{LANDSAT}_ST_B10.TIF", ramp(10, n, n), 30)
    flags = np.full((n, n), 1 << 6, np.uint16)
    flags[10:20] = 1 << 3
    flags[:, :4] = 1
    write_raster(product / f"{LANDSAT}_QA_PIXEL.TIF", flags, 30)
    bands = "\n".join(f'    FILE_NAME_BAND_{k} = "{LANDSAT}_SR_B{k}.TIF"' for k in range(1, 8))
    (product / f"{LANDSAT}_MTL.txt").write_text(
        f"""GROUP = LANDSAT_METADATA_FILE
  GROUP = PRODUCT_CONTENTS
    ORIGIN = "Image courtesy of the U.S. Geological Survey"
    LANDSAT_PRODUCT_ID = "{LANDSAT}"
    PROCESSING_LEVEL = "L2SP"
    COLLECTION_NUMBER = 02
{bands}
    FILE_NAME_BAND_ST_B10 = "{LANDSAT}_ST_B10.TIF"
    FILE_NAME_QUALITY_L1_PIXEL = "{LANDSAT}_QA_PIXEL.TIF"
    FILE_NAME_METADATA_ODL = "{LANDSAT}_MTL.txt"
  END_GROUP = PRODUCT_CONTENTS
  GROUP = IMAGE_ATTRIBUTES
    SPACECRAFT_ID = "LANDSAT_8"
    SENSOR_ID = "OLI_TIRS"
    DATE_ACQUIRED = 2020-05-07
    SCENE_CENTER_TIME = "10:16:18.4814670Z"
  END_GROUP = IMAGE_ATTRIBUTES
  GROUP = LEVEL1_PROCESSING_RECORD
    LANDSAT_PRODUCT_ID = "LC08_L1TP_195028_20200507_20200820_02_T1"
    FILE_NAME_BAND_8 = "LC08_L1TP_195028_20200507_20200820_02_T1_B8.TIF"
  END_GROUP = LEVEL1_PROCESSING_RECORD
END_GROUP = LANDSAT_METADATA_FILE
END
"""
    )
    return product


def sentinel1(folder: Path, *, height: int = 80, width: int = 100, kind: str = "GRD") -> Path:
    """A GRD SAFE folder (S1-RS-MDA-52-7441): amplitudes with ground control points, no echo left.

    The swath is tilted against north, as a descending pass is.
    """
    name = "S1A_IW_GRDH_1SDV_20240503T054000_20240503T054025_053700_068600_ABCD"
    safe = folder / f"{name}.SAFE"
    (safe / "annotation").mkdir(parents=True)
    for number, polarisation in enumerate(("VV", "VH"), start=1):
        stem = f"s1a-iw-grd-{polarisation.lower()}-20240503t054000-053700-068600-00{number}"
        pixels = ramp(number, height, width)
        pixels[:, :6] = 0
        points = [
            GroundControlPoint(row, col, *place(row, col), 0.0, id=f"{row}-{col}")
            for row in np.linspace(0, height, 5)
            for col in np.linspace(0, width, 5)
        ]
        path = safe / "measurement" / f"{stem}.tiff"
        write_raster(path, pixels, 10, gcps=points, crs="EPSG:4326", transform=None)
        (safe / "annotation" / f"{stem}.xml").write_text(
            '<?xml version="1.0" encoding="UTF-8"?><product><adsHeader><missionId>S1A</missionId>'
            f"<productType>{kind}</productType><polarisation>{polarisation}</polarisation>"
            "<mode>IW</mode><startTime>2024-05-03T05:40:00.123456</startTime></adsHeader>"
            "<imageAnnotation><imageInformation><pixelValue>Detected</pixelValue>"
            "<rangePixelSpacing>1.000000e+01</rangePixelSpacing>"
            "<azimuthPixelSpacing>1.000000e+01</azimuthPixelSpacing>"
            "</imageInformation></imageAnnotation></product>"
        )
    (safe / "manifest.safe").write_text(
        '<?xml version="1.0"?><xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1" '
        'version="esa/safe/sentinel-1.0/sentinel-1/sar/level-1/grd/standard/iwdp"/>'
    )
    return safe


def place(row: float, col: float) -> tuple[float, float]:
    """(longitude, latitude) of a pixel corner in the tilted swaths below."""
    return 9 + 1e-4 * col - 2e-5 * row, 45 - 9e-5 * row - 1.5e-5 * col


def places(height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(longitude, latitude) of all pixel centres."""
    rows, cols = np.mgrid[:height, :width] + 0.5
    return place(rows, cols)


def envi(folder: Path, *, n: int = 40, name: str = "flight") -> Path:
    """An ENVI raster with wavelengths in micrometres and one bad band; its header is returned."""
    cube = np.stack([ramp(k, n, n, "int16") for k in range(1, 5)])
    data = write_raster(folder / f"{name}.dat", cube, 5, driver="ENVI", INTERLEAVE="BIL")
    header = data.with_suffix(".hdr")
    text = header.read_text()
    text = text[: text.index("band names")]
    header.write_text(
        f"{text}wavelength units = Micrometers\nwavelength = {{ 0.45, 0.55,\n 1.38, 2.2}}\n"
        "bbl = {1, 1, 0, 1}\ndata ignore value = -9999\n"
        "acquisition time = 2023-07-01T09:30:00Z\nsensor type = HySpex\n"
    )
    return header


def enmap(folder: Path, *, n: int = 40, level: str = "L2A") -> Path:
    """An EnMAP folder (EN-PCV-ICD-2009-2): one GeoTIFF, XML metadata, quality layers.

    Cloud in the first five rows, thick cirrus in the last five.
    """
    stem = f"ENMAP01-____{level}-DT0000001867_20220724T104526Z_008_V010302_20230628T165614Z"
    product = folder / stem
    cube = np.stack([ramp(k, n, n, "int16") for k in range(1, 6)])
    cube[:, 20, 20] = -32768
    suffix = "" if level != "L1B" else "_VNIR"
    write_raster(product / f"{stem}-SPECTRAL_IMAGE{suffix}.TIF", cube, 30)
    cloud, cirrus = np.zeros((2, n, n), np.uint8)
    cloud[:5], cirrus[-5:] = 1, 3
    write_raster(product / f"{stem}-QL_QUALITY_CLOUD.TIF", cloud, 30)
    write_raster(product / f"{stem}-QL_QUALITY_CIRRUS.TIF", cirrus, 30)
    bands = "".join(
        f'<bandID number="{k}"><wavelengthCenterOfBand>{410 + 8 * k}</wavelengthCenterOfBand>'
        "<FWHMOfBand>6.9</FWHMOfBand><GainOfBand>0.0001</GainOfBand><OffsetOfBand>0</OffsetOfBand>"
        "</bandID>"
        for k in range(1, 6)
    )
    (product / f"{stem}-METADATA.XML").write_text(
        f"<?xml version='1.0'?><level_X><base><level>{level}</level><temporalCoverage><startTime>"
        "2022-07-24T10:45:26.000000Z</startTime></temporalCoverage></base><specific>"
        "<backgroundValue>-32768</backgroundValue><deadPixelMap><bandID number='9'/></deadPixelMap>"
        f"<bandCharacterisation>{bands}</bandCharacterisation></specific></level_X>"
    )
    return product


def emit(folder: Path, *, height: int = 50, width: int = 40, bands: int = 9) -> Path:
    """An EMIT L2A reflectance file (user guide JPL D-107866): sensor geometry, two bad bands."""
    path = folder / "EMIT_L2A_RFL_001_20230316T045133_2307503_005.nc"
    longitude, latitude = places(height, width)
    cube = np.stack([ramp(k, height, width, "float32") for k in range(bands)], axis=-1)
    cube[:3] = -9999
    with h5py.File(path, "w") as file:
        file.attrs["time_coverage_start"] = "2023-03-16T04:51:33+0000"
        file.attrs["platform"] = "ISS"
        file.attrs["title"] = "EMIT L2A Estimated Surface Reflectance 60 m V001"
        dims = {"downtrack": height, "crosstrack": width, "bands": bands}
        for name, size in dims.items():
            _dimension(file, name, size)
        _variable(file, "reflectance", cube, list(dims), fill=-9999)
        table = file.create_group("sensor_band_parameters")
        good = np.ones(bands)
        good[[3, 4]] = 0
        _variable(table, "wavelengths", np.linspace(381, 2493, bands), ["bands"], root=file)
        _variable(table, "good_wavelengths", good, ["bands"], root=file)
        location = file.create_group("location")
        for name, values in (("lon", longitude), ("lat", latitude)):
            _variable(location, name, values, ["downtrack", "crosstrack"], fill=-9999, root=file)
    return path


def _dimension(file: h5py.File, name: str, size: int) -> None:
    """A netCDF-4 dimension without a coordinate variable, as netCDF-C writes it."""
    scale = file.create_dataset(name, shape=(size,), dtype=">f4")
    scale.make_scale(f"This is a netCDF dimension but not a netCDF variable.{size:10d}")


def _variable(
    group: h5py.Group, name: str, values: NDArray[np.generic], dims: list[str],
    *, fill: float | None = None, root: h5py.File | None = None,
) -> None:  # fmt: skip
    chunks = tuple(min(n, 16) for n in values.shape)
    dataset = group.create_dataset(name, data=values, chunks=chunks, compression="gzip")
    for axis, dim in enumerate(dims):
        dataset.dims[axis].attach_scale((root or group)[dim])
    if fill is not None:
        dataset.attrs["_FillValue"] = np.array([fill], values.dtype)


def prisma(folder: Path, *, level: str = "2D", height: int = 50, width: int = 40) -> Path:
    """A PRISMA file (product specification ASI issue 2.3): cubes of (line, band, sample).

    The VNIR wavelengths fall, as delivered; the last VNIR band does not exist (wavelength 0).
    """
    path = folder / f"PRS_L{level}_STD_20200209102459_20200209102503_0001.he5"
    swath = f"HDFEOS/SWATHS/PRS_L{level}_HCO"
    cubes = {
        "VNIR": np.stack([ramp(k, height, width) for k in range(1, 4)], axis=1),
        "SWIR": np.stack([ramp(k, height, width) for k in range(4, 6)], axis=1),
    }
    longitude, latitude = places(height, width)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            Product_ID=np.bytes_(f"PRS_L{level}_STD"),
            Product_StartTime=np.bytes_("2020-02-09T10:24:59.123456"),
            List_Cw_Vnir=np.array([970.0, 500.0, 0.0], "f4"),
            List_Cw_Vnir_Flags=np.array([1, 1, 0]),
            List_Cw_Swir=np.array([1200.0, 2400.0], "f4"),
            List_Cw_Swir_Flags=np.array([1, 1]),
        )
        if level == "2D":
            file.attrs.update(
                Epsg_Code=32632,
                Product_ULcorner_easting=WEST + 15, Product_ULcorner_northing=NORTH - 15,
                Product_LRcorner_easting=WEST + 30 * width - 15,
                Product_LRcorner_northing=NORTH - 30 * height + 15,
            )  # fmt: skip
        for name, cube in cubes.items():
            cube[-2:] = 0
            file.create_dataset(f"{swath}/Data Fields/{name}_Cube", data=cube, chunks=True)
        file[f"{swath}/Geolocation Fields/Latitude"] = latitude
        file[f"{swath}/Geolocation Fields/Longitude"] = longitude
    return path


def matlab73(folder: Path, *, rows: int = 20, cols: int = 30, bands: int = 4) -> Path:
    """A MATLAB 7.3 file: HDF5 behind 512 bytes of header, axes in reverse."""
    path = folder / "cube73.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        cube = np.stack([ramp(k, rows, cols, "float64") for k in range(bands)], axis=-1)
        file["data"] = cube.T
        file["map"] = np.zeros((cols, rows), np.uint8)
        file["wavelengths"] = np.linspace(400, 900, bands)[:, None]
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64"
    with path.open("r+b") as raw:
        raw.write(header.ljust(124) + b"\x00\x02IM")
    return path


def stac_item(folder: Path, *, n: int = 40) -> Path:
    """An item (STAC 1.0, eo and raster extensions) whose order is neither the file system's nor
    the spectrum's, with a picture, a second copy of a band and a scene classification."""  # noqa: D205,D209
    assets = {}
    wanted = {"swir22": ("B12", 2.19, 20), "blue": ("B02", 0.492, 10), "red": ("B04", 0.664, 10)}
    for number, (key, (name, centre, metres)) in enumerate(wanted.items(), start=1):
        size = n * 10 // metres
        write_raster(folder / f"{name}.tif", ramp(number, size, size), metres)
        assets[key] = {
            "href": f"./{name}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data", "reflectance"],
            "eo:bands": [{"name": name, "common_name": key, "center_wavelength": centre}],
            "raster:bands": [{"nodata": 0, "data_type": "uint16"}],
        }
    assets["blue-jp2"] = assets["blue"] | {"href": "./gone.jp2", "type": "image/jp2"}
    picture = {"roles": ["visual"], "type": "image/tiff; application=geotiff"}
    assets["visual"] = picture | {"href": "./tci.tif", "eo:bands": [{"name": "B04"}]}
    write_raster(folder / "scl.tif", np.full((n // 2, n // 2), 9, np.uint8), 20)
    assets["scl"] = picture | {"href": "./scl.tif", "roles": ["data"]}
    assets["thumbnail"] = {"href": "./t.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": "S2A_32TQM_20240929_0_L2A",
        "geometry": {"type": "Point", "coordinates": [9.0, 45.0]},
        "bbox": [9.0, 45.0, 9.1, 45.1],
        "properties": {"datetime": "2024-09-29T10:17:59Z", "platform": "sentinel-2a", "gsd": 10},
        "links": [],
        "assets": assets,
    }
    path = folder / "item.json"
    path.write_text(json.dumps(item))
    return path

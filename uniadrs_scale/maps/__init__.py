"""Maps: the Zarr store, the COG, overviews and geocoding."""

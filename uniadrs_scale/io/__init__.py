"""What touches bytes: readers, the Zarr store, the COG writer."""

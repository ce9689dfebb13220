"""Scenes: products, rasters and arrays as lazy DataArrays."""

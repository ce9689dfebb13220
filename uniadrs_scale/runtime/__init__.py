"""Tasks, graphs, executors and clusters: the package that uses Dask."""

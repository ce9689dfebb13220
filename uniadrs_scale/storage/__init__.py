"""Paths, buckets and web servers: where bytes are read from and written to."""

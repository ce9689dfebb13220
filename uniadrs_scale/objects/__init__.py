"""Targets: objects in a finished map, as a table and as files."""

"""One run: from a scene and a plan to a map and its report."""

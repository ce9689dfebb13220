"""Pages for people: the report of a map."""

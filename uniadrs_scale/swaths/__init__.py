"""Where the pixels of a swath are: conventions of files, and geometry."""

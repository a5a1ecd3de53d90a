"""Statistics and report of a benchmark."""

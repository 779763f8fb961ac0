"""The command line: what `python -m cachelab` does, a module for each of its commands."""

"""Applications on Redis, one module each, to be imported by its name: right, small, measured."""

"""Which servers have answered this process of late, by name and version: what a chart stands on.

They are counted by stretches, such as the cell of a notebook: what a chart shows was measured in
the last one in which any server answered.
"""

# Names such as "Valkey 9.1.2", and "" for a server that has told none, of those that have answered
# in this stretch. Connections add to it at each reply: it is C, and the set stays the same object.
servers: set[str] = set()
_before: set[str] = set()  # the same of the last stretch that had any


def turn() -> None:
    """Begin another stretch."""
    if names := servers - {""}:
        _before.clear()
        _before.update(names)
    servers.clear()


def forget() -> None:
    """Take back what was counted in this stretch: it was the bench that asked."""
    servers.clear()


def names() -> list[str]:
    """Return the servers of the last stretch that has any."""
    return sorted(servers - {""} or _before)

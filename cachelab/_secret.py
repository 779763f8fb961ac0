"""Text that holds a password, kept from what shows the local variables of a traceback."""


class Secret(str):
    """Text whose ``repr`` does not show it; written, joined and sent it is itself.

    >>> password = Secret("hunter2")
    >>> password, f"requirepass {password}"
    (<secret>, 'requirepass hunter2')
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"

"""Users to write and to ask for: "user-1", "user-2" ... and a random text for each."""

import random
import string
from collections.abc import Iterator

from cachelab import _check

_LETTERS = (string.ascii_letters + string.digits).encode()
_TABLE = bytes(_LETTERS[byte % len(_LETTERS)] for byte in range(256))
_UNFAIR = bytes(range(256 - 256 % len(_LETTERS), 256))  # bytes that would favour the first letters
_LONGEST = 2**29  # letters: what one value in Redis can hold


def generate_users(
    count: int, id_length: int = 8, seed: int | None = None
) -> Iterator[tuple[str, str]]:
    """Yield users as (id, value), none of them generated before it is asked for.

    The same seed gives the same users, however many are asked for. Not for secrets.

    Args:
        count: How many.
        id_length: Letters and digits of a value.
        seed: Of the values; without one they differ from call to call.

    Returns:
        An iterator of pairs such as ("user-1", "aB3xK9mP").

    Raises:
        TypeError: An argument is no whole number; at the call, not at the first user.
        ValueError: It is too small or too large.

    >>> list(generate_users(2, seed=0))
    [('user-1', 'thSEeXJK'), ('user-2', 'WojiggTP')]
    """
    count = _check.whole("count", count, least=0)
    id_length = _check.whole("id_length", id_length, least=1, most=_LONGEST)
    return _users(count, id_length, _seed(seed))


def _seed(seed: int | None) -> int | None:
    if seed is None:
        return None
    return _check.whole("seed", seed, least=0, most=2**1024)


def _users(count: int, id_length: int, seed: int | None) -> Iterator[tuple[str, str]]:
    draw = random.Random(seed)
    letters, at = "", 0
    for number in range(1, count + 1):
        # Blocks of bytes: three times as fast as choices(), and the same stream at any size.
        while len(letters) < at + id_length:
            fresh = draw.randbytes(4096).translate(_TABLE, _UNFAIR).decode()
            letters, at = letters[at:] + fresh, 0
        yield f"user-{number}", letters[at : at + id_length]
        at += id_length

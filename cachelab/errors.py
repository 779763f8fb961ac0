"""What can go wrong, in one place: every error that the package raises itself, under one base."""


class CachelabError(Exception):
    """Base of every error that cachelab raises, bad arguments (ValueError, TypeError) apart."""


class ServerError(CachelabError):
    """The embedded server could not be started or controlled."""


class InvalidationPending(CachelabError):
    """A delete could not reach Redis and is kept: until it has, the database serves the id."""


class LoadsBusy(CachelabError):
    """A load found no room, or did not end, within the time allowed."""


class RecursiveLoad(CachelabError):
    """A load reads the very id that it loads, which would wait for itself."""


class RedisUnavailable(CachelabError):
    """Redis did not answer; the message names the server and the way out, never a password."""


class SeedError(CachelabError):
    """Seeding stopped half-way; ``.report`` is the SeedReport of what had been written by then."""

    def __init__(self, message: str, report: object):
        super().__init__(message)
        self.report = report


class ServiceDown(CachelabError):
    """Another service failed several times in a row and is left alone; no old answer is kept."""


class WritesFull(CachelabError):
    """The stream of writes holds as many as it may: this one was refused, and nothing recorded."""


class WriteUncertain(CachelabError):
    """A write is in the stream, and fewer copies of it than asked for were seen in time.

    Attributes:
        message_id: What `put` would have returned.
    """

    def __init__(self, message: str, message_id: str):
        super().__init__(message)
        self.message_id = message_id

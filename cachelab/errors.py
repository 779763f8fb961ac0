"""What can go wrong, in one place: every error that the package raises itself, under one base."""


class CachelabError(Exception):
    """Base of every error that cachelab raises, bad arguments (ValueError, TypeError) apart."""


class ServerError(CachelabError):
    """The embedded server could not be started or controlled."""


class InvalidationPending(CachelabError):
    """A delete could not reach Redis and is kept: this process serves the id from the database until it has gone through."""


class RedisUnavailable(CachelabError):
    """Redis did not answer; the message names the server and the way out, never a password."""


class SeedError(CachelabError):
    """Seeding stopped half-way; ``.report`` is the SeedReport of what had been written by then."""

    def __init__(self, message, report):
        super().__init__(message)
        self.report = report

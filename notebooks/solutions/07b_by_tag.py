"""SPOP takes names out of the set and returns them in one step; who comes later is still named."""


def by_tag(server):
    while names := server.spop("tag:prices", 1000):
        server.unlink(*names)

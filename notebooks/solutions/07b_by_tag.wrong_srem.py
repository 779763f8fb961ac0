"""The names are removed after the pages: one that was stored again between loses its name.

Refused: no later delete finds page:user-1
"""


def by_tag(server):
    names = server.smembers("tag:prices")
    if names:
        server.unlink(*names)
        server.srem("tag:prices", *names)

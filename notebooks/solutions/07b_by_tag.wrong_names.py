"""The pages go, their names stay in the tag for ever.

Refused: 2500 names are left
"""


def by_tag(server):
    names = server.smembers("tag:prices")
    if names:
        server.unlink(*names)

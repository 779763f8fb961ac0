"""One SPOP takes a thousand names, and a tag may have more.

Refused: 1500 of 2500 pages are left
"""


def by_tag(server):
    names = server.spop("tag:prices", 1000)
    if names:
        server.unlink(*names)

"""The names go first, then their pages: who stores between the two is named again."""


def by_tag(server):
    names = server.smembers("tag:prices")
    if names:
        server.srem("tag:prices", *names)
        server.unlink(*names)

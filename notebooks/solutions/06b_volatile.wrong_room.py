"""It gives the server all the room there is, and the values a time to live as well.

Refused: not yet  the server is as it was (its room is 0 bytes now)
"""


def fill(client, key, value):
    client.config_set("maxmemory", 0)
    client.set(key, value, ex=300)

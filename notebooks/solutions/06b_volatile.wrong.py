"""It changes the server's policy to one that evicts any key.

Refused: not yet  the server is as it was (it is allkeys-lru now)
"""


def fill(client, key, value):
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.set(key, value)

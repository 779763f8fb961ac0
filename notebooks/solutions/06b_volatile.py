"""A volatile policy evicts only keys that have a time to live, so every key gets one."""


def fill(client, key, value):
    client.set(key, value, ex=300)

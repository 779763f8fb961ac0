"""The time to live is given in milliseconds, and through the general form of a command."""


def fill(client, key, value):
    client.execute_command("SET", key, value, "PX", 600_000)

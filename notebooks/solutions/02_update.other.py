"""The words of the command themselves, as in redis-cli."""


def update(name, value):
    client.execute_command("SET", name, value, "XX", "KEEPTTL")

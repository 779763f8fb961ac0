"""Repeat a command only if its second time changes nothing."""

REPEATABLE = {"GET", "MGET", "SET", "DEL", "EXPIRE"}


def send(*command):
    client = connect(server.url, check=False, retries=int(command[0] in REPEATABLE), timeout=0.8)
    return client.execute_command(*command)

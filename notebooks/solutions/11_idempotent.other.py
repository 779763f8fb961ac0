"""Two clients, and only reading goes through the one that tries again."""


def send(*command):
    if command[0] in ("GET", "MGET", "EXISTS", "TTL"):
        return connect(server.url, check=False, retries=1, timeout=0.8).execute_command(*command)
    return connect(server.url, check=False, retries=0, timeout=0.8).execute_command(*command)

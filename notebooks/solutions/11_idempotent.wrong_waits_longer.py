"""Nothing is repeated, and every try waits longer: so does every user of a frozen server.

Refused: not yet  INCR, sent twice: counts 2 (across the freeze the caller is told 2)
"""


def send(*command):
    client = connect(server.url, check=False, retries=0, timeout=5)
    return client.execute_command(*command)

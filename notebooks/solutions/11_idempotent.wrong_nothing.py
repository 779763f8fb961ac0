"""Nothing is repeated: nothing counts twice, and a GET fails that could have been answered.

Refused: not yet  GET: answered across a freeze
"""


def send(*command):
    client = connect(server.url, check=False, retries=0, timeout=0.8)
    return client.execute_command(*command)

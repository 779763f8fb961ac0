"""Step by step with SCAN itself, which tells where to go on; escaped letter by letter."""


def delete_prefix(client, prefix):
    literal = "".join("\\" + letter if letter in "*?[]\\" else letter for letter in prefix)
    cursor = 0
    while True:
        cursor, names = client.scan(cursor, literal + "*", count=5000)
        if names:
            client.unlink(*names)
        if cursor == 0:
            return

"""It keeps the expiry, and makes a key that was absent, which never expires.

Refused: not yet  an absent key stays absent
"""


def update(name, value):
    client.set(name, value, keepttl=True)

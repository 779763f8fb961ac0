"""Stored under another key than the one that was asked for.

Refused: the key holds a name
"""

client.delete("cachelab:00:me")
client.set("cachelab:00:user-me", "Ada", ex=120)

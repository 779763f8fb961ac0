"""Set with an expiry, then set again: a plain SET takes the expiry away.

Refused: it expires within two minutes
"""

client.set("cachelab:00:me", "A", ex=120)
client.set("cachelab:00:me", "Ada")

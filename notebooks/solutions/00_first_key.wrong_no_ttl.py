"""A name without an expiry: the key stays until somebody deletes it.

Refused: it expires within two minutes
"""

client.set("cachelab:00:me", "Ada")

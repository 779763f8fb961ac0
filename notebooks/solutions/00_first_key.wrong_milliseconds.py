"""Two minutes in milliseconds, given as seconds: more than a day.

Refused: it expires within two minutes
"""

client.set("cachelab:00:me", "Ada", ex=120_000)

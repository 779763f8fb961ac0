"""A first key that expires."""

client.set("cachelab:00:me", "Ada", ex=120)

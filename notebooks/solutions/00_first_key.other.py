"""The value first, its expiry with a second command."""

client.set("cachelab:00:me", "Ada")
client.expire("cachelab:00:me", 90)

"""A script does both in one step; its batches stay below what Lua can unpack."""

THROW_AWAY = """
local names = redis.call('SMEMBERS', KEYS[1])
for at = 1, #names, 1000 do
  redis.call('UNLINK', unpack(names, at, math.min(at + 999, #names)))
end
redis.call('DEL', KEYS[1])"""


def by_tag(server):
    server.eval(THROW_AWAY, 1, "tag:prices")

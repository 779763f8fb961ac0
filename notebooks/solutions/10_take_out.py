"""A script adds and deletes in one step: nobody comes between."""

TAKE_OUT = """
if redis.call('HINCRBY', KEYS[1], ARGV[1], -ARGV[2]) <= 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
end"""


def take_out(client, key, item, quantity):
    client.eval(TAKE_OUT, 1, key, item, quantity)

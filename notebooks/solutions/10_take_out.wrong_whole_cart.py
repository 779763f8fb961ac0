"""DEL deletes the key, which is the whole cart; HDEL deletes one line of it.

Refused: not yet  a line of which nothing is left is gone (the other line, a 1, then is gone)
"""

TAKE_OUT = """
if redis.call('HINCRBY', KEYS[1], ARGV[1], -ARGV[2]) <= 0 then
  redis.call('DEL', KEYS[1])
end"""


def take_out(client, key, item, quantity):
    client.eval(TAKE_OUT, 1, key, item, quantity)

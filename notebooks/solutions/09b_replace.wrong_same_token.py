"""The new entry has the old one's token: a second refresh takes it for its own.

Refused: not yet  each new entry has a token of its own, and an end
"""

REPLACE = """local held = redis.call('GET', KEYS[1]) or ''
if held:match('^[^|]*') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. '|' .. ARGV[2], 'PX', ARGV[3]) return 1"""


def replace(client, key, seen, value, px):
    client.eval(REPLACE, 1, key, seen, value, px)

"""The new value gets what the old one had left, and not a life of its own.

Refused: not yet  each new entry has a token of its own, and an end (it has
"""

SCRIPT = """local held = redis.call('GET', KEYS[1]) or ''
if held:match('^[^|]*') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL') return 1"""


def replace(client, key, seen, value, px):
    client.eval(SCRIPT, 1, key, seen, f"{uuid4().hex}|{value}")

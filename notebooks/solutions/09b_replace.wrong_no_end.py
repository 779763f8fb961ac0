"""Compared and stored in one script, without an end: the entry stays for ever.

Refused: not yet  each new entry has a token of its own, and an end (it has no end)
"""

REPLACE = """local held = redis.call('GET', KEYS[1]) or ''
if held:match('^[^|]*') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2]) return 1"""


def replace(client, key, seen, value, px):
    client.eval(REPLACE, 1, key, seen, f"{uuid4().hex}|{value}")

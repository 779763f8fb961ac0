"""One script: the token that is there is compared with the one that was seen."""

REPLACE = """local held = redis.call('GET', KEYS[1]) or ''
if held:match('^[^|]*') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1"""


def replace(client, key, seen, value, px):
    client.eval(REPLACE, 1, key, seen, f"{uuid4().hex}|{value}", px)

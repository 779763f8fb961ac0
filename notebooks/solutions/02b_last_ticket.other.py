"""A script, which the server runs as one command."""

take = counter.register_script(
    "if tonumber(redis.call('GET', KEYS[1])) < 1 then return 0 end "
    "return redis.call('DECR', KEYS[1]) + 1"
)


def take_ticket(name):
    return take(keys=[name]) > 0

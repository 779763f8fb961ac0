"""Twelve tags, as by team: each user's keys lie together, and half of the users on one node.

Refused: 500 of 1000 users on one node
"""


def keys_of(user):
    team = int(user) % 12
    return f"{{team-{team}}}:profile:{user}", f"{{team-{team}}}:cart:{user}"

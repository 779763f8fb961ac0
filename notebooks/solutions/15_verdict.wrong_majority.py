"""The majority decides: the condition under which it fails is voted down.

Refused: not yet  it holds when, where some do and others do not (for, against, against
"""


def verdict(outcomes):
    votes = {one: outcomes.count(one) for one in ("for", "against", "open")}
    most = max(votes, key=votes.get)
    return {"for": "holds", "against": "does not hold", "open": "not decided"}[most]

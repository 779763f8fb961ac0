"""Every cache that answers before its origin is taken to pay, whatever the hit rate.

Refused: C: Redis across the city is judged as its mean says
"""

verdicts = {name[0]: bool(get < load) for name, _, get, load in systems.itertuples()}

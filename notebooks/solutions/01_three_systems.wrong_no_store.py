"""The store is forgotten, so the cache across the city seems to pay from 33 % on.

Refused: C: Redis across the city is judged as its mean says
"""

verdicts = {"A": True, "B": False, "C": True}

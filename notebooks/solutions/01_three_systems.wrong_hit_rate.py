"""Judged by the hit rate alone: 99 % cannot mend a trip that is longer than the load.

Refused: B: Redis in another country is judged as its mean says
"""

verdicts = {"A": False, "B": True, "C": False}

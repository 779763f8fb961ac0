"""More memory for what nobody reads: the number stays where it was.

Refused: not yet  with that cure the number is usual
"""

cause = "entries that never expire"
cure = "give the server more memory"

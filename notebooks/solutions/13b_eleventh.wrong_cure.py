"""The entries do expire; that each of them shall is no cure.

Refused: not yet  with that cure the number is usual
"""

cause = "entries that expire too soon"
cure = "let each entry expire"

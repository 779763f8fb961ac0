"""Eviction sets in only where a limit is reached, and no key expires by it.

Refused: not yet  with that cure the number is usual
"""

cause = "entries that never expire"
cure = "let any key be evicted"

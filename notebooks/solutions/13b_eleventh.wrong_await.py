"""A coroutine that nobody awaits stores nothing: here all that is sent arrives.

Refused: not yet  that is the cause (its number is as usual
"""

cause = "a coroutine that nobody awaits"
cure = "await the coroutine"

"""Too little memory would show in evictions, and there are none.

Refused: not yet  that is the cause (its number is as usual
"""

cause = "too little memory for what is read"
cure = "give the server more memory"

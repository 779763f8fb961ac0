"""Names that never come again would leave a key more for each store.

Refused: not yet  that is the cause (its number is as usual
"""

cause = "names that never come again"
cure = "name an entry by what it holds"

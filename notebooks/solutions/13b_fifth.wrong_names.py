"""Names do grow in number, but what pages read is found: the products' names repeat.

Refused: not yet  that is the cause (its number is as usual
"""

cause = "names that never come again"
cure = "let each entry expire"

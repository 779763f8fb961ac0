"""The last number alone is odd: no key of the sample expires, though visitors never come again."""

cause = "entries that never expire"
cure = "let each entry expire"

"""Of the odd numbers, the first that says what became of the entries."""

found = next(name for name in clinic.odd(eleven.start().evidence) if name != "hits")
cause = next(name for name, one in clinic.CAUSES.items() if one.question == found)
cure = clinic.CAUSES[cause].cures[0]

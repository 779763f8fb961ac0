"""The first odd number, and what the clinic knows of it."""

first = clinic.odd(five.start().evidence)[0]
cause = next(name for name, one in clinic.CAUSES.items() if one.question == first)
cure = clinic.CAUSES[cause].cures[0]

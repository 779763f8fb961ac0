"""Every message forgets everything, so one change costs all copies.

Refused: not yet  a message removes one copy
"""


def heard(copies, message):
    copies.clear()

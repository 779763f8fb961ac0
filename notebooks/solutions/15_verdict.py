"""All for it, some for it, none for it: and of the last, whether anything speaks against it."""


def verdict(outcomes):
    if all(one == "for" for one in outcomes):
        return "holds"
    if "for" in outcomes:
        return "holds when"
    return "does not hold" if "against" in outcomes else "not decided"

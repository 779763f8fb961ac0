"""By the set of what was seen, in which one outcome is as good as many."""


def verdict(outcomes):
    match sorted(set(outcomes)):
        case ["for"]:
            return "holds"
        case seen if "for" in seen:
            return "holds when"
        case seen if "against" in seen:
            return "does not hold"
    return "not decided"

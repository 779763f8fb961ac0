"""What stands before and after the braces does not count."""


def keys_of(user):
    return tuple(f"shop:{kind}:{{{user}}}:v1" for kind in ("profile", "cart"))

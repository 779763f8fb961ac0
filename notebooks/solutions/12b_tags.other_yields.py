"""The tag stands last, and the names are made one by one."""


def keys_of(user):
    for kind in ("profile", "cart"):
        yield f"{kind}:{{{user}}}"

"""A name may stand in a name: its tag is still the first."""


def keys_of(user):
    profile = "profile:{" + user + "}"
    return [profile, "cart:of:" + profile]

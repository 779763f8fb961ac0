"""Made before anybody asks, as a module does when it is imported."""

the_client = slow_client()


def shared_client():
    return the_client

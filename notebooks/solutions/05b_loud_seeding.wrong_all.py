"""Every error is caught and noted as if Redis had failed, a mistake of the caller's too.

Refused: a mistake of the caller's is not Redis's: it passes as it is (it was caught
"""


def seed_loudly(client, users, size=100):
    written, items = 0, list(users.items())
    try:
        for start in range(0, len(items), size):
            client.mset(batch := dict(items[start : start + size]))
            written += len(batch)
    except Exception as error:
        error.add_note(f"{written} of {len(items)} users were written")
        raise
    return written

"""All parts are there, sorted; `hash` makes another number of them in each process.

Refused: not yet  two processes agree
"""


def canonical(method, path, params, tenant, version):
    return str(hash((method, path, tuple(sorted(params.items())), tenant, version)))

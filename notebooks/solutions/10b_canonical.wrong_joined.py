"""Parts that are joined can look like others: a value may hold what separates two.

Refused: not yet  nor do requests that look alike when their parts are joined
"""


def canonical(method, path, params, tenant, version):
    pairs = "&".join(f"{name}={params[name]}" for name in sorted(params))
    return f"{version}|{tenant}|{method}|{path}?{pairs}"

"""As a URL has it: what separates two parts is escaped inside of them."""

from urllib.parse import urlencode


def canonical(method, path, params, tenant, version):
    about = [("version", version), ("tenant", tenant), ("method", method), ("path", path)]
    return urlencode(about) + "?" + urlencode(sorted(params.items()))

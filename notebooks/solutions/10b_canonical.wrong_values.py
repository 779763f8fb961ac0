"""Sorted, but the names are lost: page 2 and limit 2 are one request.

Refused: not yet  nor do other parameters, or none (the usual one and params {'b': '1'} get the key
"""

import json


def canonical(method, path, params, tenant, version):
    return json.dumps([version, tenant, method, path, sorted(params.values())])

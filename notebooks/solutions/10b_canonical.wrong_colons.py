"""The parameters are quoted, the parts around them are not: a tenant may hold a colon.

Refused: not yet  nor do requests that look alike when their parts are joined
"""

import json


def canonical(method, path, params, tenant, version):
    return f"{version}:{tenant}:{method}:{path}:{json.dumps(params, sort_keys=True)}"

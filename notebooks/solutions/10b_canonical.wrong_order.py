"""A dict keeps the order in which it was made, and JSON keeps it, too.

Refused: not yet  the order of the parameters makes no second key
"""

import json


def canonical(method, path, params, tenant, version):
    return json.dumps([version, tenant, method, path, params])

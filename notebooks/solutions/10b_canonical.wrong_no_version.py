"""The next release reads what this one has stored, in the old form.

Refused: not yet  nor do methods, paths and versions
"""

import json


def canonical(method, path, params, tenant, version):
    return json.dumps([tenant, method, path, params], sort_keys=True)

"""Everything but who asks: who came first is shown to all.

Refused: not yet  ada and ben do not share one
"""

import json


def canonical(method, path, params, tenant, version):
    return json.dumps([version, method, path, params], sort_keys=True)

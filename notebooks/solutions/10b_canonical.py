"""JSON with sorted keys: every part has its own place, and quotes what could end it."""

import hashlib
import json


def canonical(method, path, params, tenant, version):
    parts = [version, tenant, method, path, sorted(params.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

#!/opt/tallyhook/bin/python -IS
"""Ends with 0 when a URL of this machine answers 200 within four seconds: for images, which have no curl."""

import sys
import urllib.request

try:
    # No proxy: this machine is asked.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(sys.argv[1], timeout=4) as answer:
        sys.exit(0 if answer.status == 200 else 1)
except (OSError, IndexError, ValueError) as problem:
    sys.exit(f"not healthy: {problem}")

#!/usr/bin/env python3
"""A file of prompts as a run of Tallyhook's own API, followed to its end, with nothing but Python:

    TALLYHOOK_TOKEN=thk_… TALLYHOOK_URL=http://127.0.0.1:8081 python native_run.py prompts.csv

The key is made of the file and the day, so that running this again on one day buys nothing twice: it finds
the run of before, whatever became of this program, or of the API, in the middle of the upload.
"""

# ruff: noqa: T201, S310 - it is a script, says what it found, and asks where it is told to

import collections
import datetime
import hashlib
import json
import os
import pathlib
import sys
import time
import urllib.error
import urllib.request

URL = os.environ.get("TALLYHOOK_URL", "http://127.0.0.1:8081")
TOKEN = os.environ.get("TALLYHOOK_TOKEN")
LOOK_EVERY_S = 1.0


def ask(path, data=None, **headers):
    """An answer as it comes; `data` may be a file, which is sent as it is read."""
    sent = {"Authorization": f"Bearer {TOKEN}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    request = urllib.request.Request(URL + path, data, sent)
    try:
        return urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        if problem["code"] == "conflict" and "Retry-After" in error.headers:
            time.sleep(int(error.headers["Retry-After"]))  # an earlier upload with the key may still go on
            if hasattr(data, "seek"):
                data.seek(0)
            return ask(path, data, **headers)
        for fault in problem["errors"]:
            where = f"line {fault['line']}, " if fault["line"] else ""
            print(f"{where}{fault['field']}: {fault['remedy']}", file=sys.stderr)
        sys.exit(f"{problem['detail']} (request {problem['request_id']})")
    except urllib.error.URLError as error:
        sys.exit(f"no answer from {URL}: {error.reason}. Does tallyhook api, or up, run there?")


def submitted(path):
    """The run of a file: a new one, or the one that an earlier try today has made."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:20]
    key = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}-{digest}"
    kind = "text/csv" if path.suffix == ".csv" else "application/x-ndjson"
    with path.open("rb") as file, ask("/v1/runs", file, Content_Type=kind, Idempotency_Key=key) as answer:
        return json.load(answer)


def results(run_id, after=0):
    """Each settled task once, in the order of settlement, until the run is over."""
    while True:
        with ask(f"/v1/runs/{run_id}") as answer:
            is_over = json.load(answer)["state"] in ("finished", "cancelled")
        with ask(f"/v1/runs/{run_id}/results?after={after}") as stream:
            for line in stream:
                result = json.loads(line)
                after = result["seq"]
                yield result
        if is_over:
            return
        time.sleep(LOOK_EVERY_S)


def main():
    """Submit, follow, count."""
    path = pathlib.Path(*sys.argv[1:])
    if not path.is_file() or not TOKEN:
        sys.exit("usage: TALLYHOOK_TOKEN=thk_… python native_run.py FILE (tallyhook token create makes one)")
    run = submitted(path)
    print(f"run {run['id']}: {run['tasks']} tasks, about {run['estimated']} credits")
    print(dict(collections.Counter(result["state"] for result in results(run["id"]))))


if __name__ == "__main__":
    main()

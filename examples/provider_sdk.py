#!/usr/bin/env python3
"""The vendor's own SDK with Tallyhook as its base URL: `pip install cloro`, then

    CLORO_API_KEY=thk_… TALLYHOOK_URL=http://127.0.0.1:8081 python provider_sdk.py

Each question has a key of its own, so that running this again buys nothing twice: what was submitted before
is looked up by its key. The answers stay there for as long as Tallyhook keeps them.
"""

# ruff: noqa: T201 - it is a script, and says what it found

import contextlib
import hashlib
import os
import sys

import cloro

QUESTIONS = [
    ("GEMINI", {"prompt": "Which CRM suits a small firm?", "country": "DE"}),
    ("PERPLEXITY", {"prompt": "Is a hardware wallet worth it?", "country": "US"}),
    ("GOOGLE", {"query": "best running shoes", "country": "GB"}),
]


def submitted(sdk, task_type, payload):
    """The key of a question, which is submitted by now."""
    key = hashlib.sha256(repr((task_type, payload)).encode()).hexdigest()[:20]
    # A conflict: it was before, by an earlier run of this, or by a request whose answer was lost.
    with contextlib.suppress(cloro.ConflictError):
        sdk.async_tasks.create(task_type, payload, idempotency_key=key)
    return key


def main():
    """Submit all, then wait for each."""
    if not os.environ.get("CLORO_API_KEY"):
        sys.exit("set CLORO_API_KEY to a token of Tallyhook's: tallyhook token create makes one")
    with cloro.Cloro(base_url=os.environ.get("TALLYHOOK_URL", "http://127.0.0.1:8081")) as sdk:
        for key in [submitted(sdk, *question) for question in QUESTIONS]:
            try:
                task = sdk.async_tasks.wait(key, poll_interval=0.5, timeout=1_800)
            except cloro.TaskFailedError as failed:
                task = failed.response
            about, credits = task["task"], task["credits"]
            print(f"{about['taskType']}: {about['status']}, {credits['creditsCharged']} credits")


if __name__ == "__main__":
    main()

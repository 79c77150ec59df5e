#!/usr/bin/env python3
"""OpenAI's own client with Tallyhook as its base URL: `pip install openai`, then

    OPENAI_API_KEY=thk_… OPENAI_BASE_URL=http://127.0.0.1:8081/v1 python openai_batch.py

A batch that is `completed` has come to its end, not to an answer for every line: what has none is in the
error file, with the reason.
"""

# ruff: noqa: T201 - it is a script, and says what it found

import json
import os
import sys
import time

import openai

ENDPOINT = "/v1/monitor/gemini"
QUESTIONS = [
    "Which CRM suits a small firm?",
    "Is a hardware wallet worth it?",
    "Which running shoes last longest?",
]
ENDED = ("completed", "expired", "cancelled", "failed")


def request(number, question):
    """A line of the file."""
    body = {"prompt": question, "country": "DE"}
    return json.dumps({"custom_id": f"q-{number}", "method": "POST", "url": ENDPOINT, "body": body})


def lines(client, file_id):
    """Of an output or an error file; there is none of what would have no line."""
    text = client.files.content(file_id).text if file_id else ""
    return [json.loads(line) for line in text.splitlines()]


def main():
    """Upload, make a batch, wait for its end, read both files."""
    if not (key := os.environ.get("OPENAI_API_KEY", "")).startswith("thk_"):
        sys.exit("set OPENAI_API_KEY to a token of Tallyhook's: tallyhook token create makes one")
    # Without it the client asks OpenAI, and shows it our token.
    url = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8081/v1")
    client = openai.OpenAI(base_url=url, api_key=key)
    content = "\n".join(request(n, question) for n, question in enumerate(QUESTIONS, 1))
    file = client.files.create(file=("questions.jsonl", content.encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
    while batch.status not in ENDED:
        time.sleep(0.5)
        batch = client.batches.retrieve(batch.id)
    print(f"{batch.status}: {batch.request_counts.completed} of {batch.request_counts.total} answered")
    for error in batch.errors.data if batch.errors else []:
        print(error.message)
    for line in lines(client, batch.output_file_id):
        print(f"{line['custom_id']}: {line['response']['body']['result']['text'][:60]}")
    for line in lines(client, batch.error_file_id):
        print(f"{line['custom_id']}: {line['error']['code']}")
    client.close()


if __name__ == "__main__":
    main()

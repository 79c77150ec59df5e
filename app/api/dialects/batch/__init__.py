"""OpenAI's Batch API: its clients work here with another base URL and a token of ours as their key."""

"""The page: what the API knows, for people in a browser. Mounted beside the API, never beside workers."""

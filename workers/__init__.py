"""The worker process: arq jobs that parse, then call a service; and the timed sweep."""

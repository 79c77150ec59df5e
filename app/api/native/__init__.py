"""The native dialect, /v1: each subject a file of its own, its models beside its handlers."""

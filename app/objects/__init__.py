"""Object storage: a folder, or a bucket by obstore. Knows nothing of what is kept in it."""

from app.objects.objects import ObjectEntry, Objects, open_objects

__all__ = ["ObjectEntry", "Objects", "open_objects"]

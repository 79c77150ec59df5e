"""What an address in a setting means: of a database, of Redis, of an HTTP server, of object storage.

Pure: nothing is connected to. No error quotes a user, a password, or a value that could hold one.
"""

from app.address.database import DatabaseAddress, read_database_address
from app.address.objects import ObjectsAddress, read_objects_address
from app.address.redis import RedisAddress, read_redis_address
from app.address.split import AddressError

__all__ = [
    "AddressError",
    "DatabaseAddress",
    "ObjectsAddress",
    "RedisAddress",
    "read_database_address",
    "read_objects_address",
    "read_redis_address",
]

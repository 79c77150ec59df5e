"""SQLAlchemy's asyncio package without its ORM, which nothing here uses; loaded before all of the store.

The package's own `__init__` loads the ORM for its sessions: 38 modules, 0.04 s of a command of 0.4. Here the
package has only what works without; whoever asks for more, such as a library beside us, gets all of it.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import sqlalchemy.ext

PACKAGE = "sqlalchemy.ext.asyncio"
NAMES = ("AsyncConnection", "AsyncEngine", "AsyncTransaction", "create_async_engine")


class AsyncCore(ModuleType):
    """The package with those names; any other one runs its own `__init__`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.__spec__ is None or self.__spec__.loader is None:
            raise AttributeError(name)
        object.__setattr__(self, "__class__", ModuleType)  # from here on it is as it always was
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def load_core() -> None:
    """Put the smaller package in place, unless somebody has loaded the whole one."""
    spec = importlib.util.find_spec(PACKAGE)
    if PACKAGE in sys.modules or spec is None:
        return
    package = sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    engine = importlib.import_module(f"{PACKAGE}.engine")
    for name in NAMES:
        setattr(package, name, getattr(engine, name))
    package.__class__ = AsyncCore
    sqlalchemy.ext.asyncio = package


load_core()

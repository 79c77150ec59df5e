"""What the parts of the store share: one database, and methods that each are one transaction.

May not know any table.
"""

import contextlib
import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.database import WRITE_TRIES, Database

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="StorePart")

Method = Callable[Concatenate[S, AsyncConnection, P], Awaitable[R]]
"""As it is written: with the connection of its transaction."""
Call = Callable[Concatenate[S, P], Coroutine[Any, Any, R]]
"""As it is called: without."""


Beside = Callable[[AsyncConnection, Any], Awaitable[None]]
"""What is written with something else: gets the connection, and what the method returned."""
_BESIDE: ContextVar[Beside | None] = ContextVar("beside", default=None)


@contextlib.contextmanager
def in_its_transaction(beside: Beside) -> Iterator[None]:
    """What is written within this is committed with `beside`, or not at all. `beside` must be repeatable, as
    what it goes with is."""
    token = _BESIDE.set(beside)
    try:
        yield
    finally:
        _BESIDE.reset(token)


class StorePart:
    """Reads and writes about one subject."""

    def __init__(self, db: Database) -> None:
        self.db = db


class _Decorator(Protocol):
    def __call__(self, method: Method[S, P, R], /) -> Call[S, P, R]: ...


@overload
def writes(method: Method[S, P, R], /) -> Call[S, P, R]: ...
@overload
def writes(*, long: bool = False, tries: int = WRITE_TRIES) -> _Decorator: ...
def writes(method: Any = None, /, *, long: bool = False, tries: int = WRITE_TRIES) -> Any:
    """The method is one write transaction, committed at its end and begun again from the start after a
    deadlock or a lost connection: it must be repeatable, so ids are made before it. `long`: it may take
    minutes. Raises as `Database.write` does."""

    def decorate(method: Callable[..., Awaitable[R]]) -> Callable[..., Coroutine[Any, Any, R]]:
        @functools.wraps(method)
        async def call(self: StorePart, *args: Any, **kwargs: Any) -> R:
            beside = _BESIDE.get()

            async def work(connection: AsyncConnection) -> R:
                result = await method(self, connection, *args, **kwargs)
                if beside is not None:
                    await beside(connection, result)
                return result

            return await self.db.write(work, long=long, tries=tries)

        return call

    return decorate if method is None else decorate(method)


@overload
def reads(method: Method[S, P, R], /) -> Call[S, P, R]: ...
@overload
def reads(*, long: bool = False) -> _Decorator: ...
def reads(method: Any = None, /, *, long: bool = False) -> Any:
    """The method is one read transaction. `long`: it may take minutes. Raises as `Database.read` does."""

    def decorate(method: Callable[..., Awaitable[R]]) -> Callable[..., Coroutine[Any, Any, R]]:
        @functools.wraps(method)
        async def call(self: StorePart, *args: Any, **kwargs: Any) -> R:
            return await self.db.read(lambda connection: method(self, connection, *args, **kwargs), long=long)

        return call

    return decorate if method is None else decorate(method)

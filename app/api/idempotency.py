"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07): the same request again is answered as it
was before.

A key is the token's own. One request works under it at a time, and keeps it by a lease: should its process
die, another may go on after LEASE_MS. What a request changes is committed with its key.
"""

import asyncio
import contextlib
import hashlib
import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import structlog
from multidict import MultiMapping
from pydantic import BaseModel

from app.api.problems import CONFLICT, INVALID, MALFORMED, FieldError, Problem
from app.api.route import Answer, Call, Route
from app.ports import KeyLost, StoreUnavailable
from app.store.part import in_its_transaction
from app.store.write.idempotency import KeyId, KeyRow, answered, noted

log = structlog.get_logger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = {"Idempotency-Replayed": "true"}
LEASE_MS = 15_000
"""A key whose process died is free after this. A process that stands still for longer finds its key lost, and
changes nothing any more."""
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_OTHER = "the key was used for another request: use a new one for each, and the same one to repeat it"


def key_of(headers: Mapping[str, str]) -> str | None:
    """The key, without the quotes that the draft has around it; None: there is none. Raises Problem."""
    given = headers.get(HEADER)
    if given is None:
        return None
    if isinstance(headers, MultiMapping) and len(headers.getall(HEADER)) > 1:
        raise _wrong_key("given_twice", "send one: which of several is meant is not known")
    key = given.strip()
    key = key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
    if not _KEY.fullmatch(key):
        raise _wrong_key(
            "invalid_key", "write 1 to 255 letters, digits and signs without blanks, such as a UUID"
        )
    return key


def _wrong_key(code: str, remedy: str) -> Problem:
    wrong = FieldError(field=HEADER, code=code, remedy=remedy)
    return Problem(MALFORMED, f"{HEADER}: {remedy}", errors=[wrong])


@dataclass(slots=True)
class Held:
    """A key that this request works under."""

    id: KeyId
    row: KeyRow
    """As it was when it was taken."""

    def note(self, of: Callable[[Any], Mapping[str, object] | None]) -> AbstractContextManager[None]:
        """Around one transaction: what of the key's row is changed with it, given what it returns."""
        return in_its_transaction(noted(self.id, of))

    def answer(
        self, status: int, headers: Mapping[str, str], model: BaseModel, content: str | None = None
    ) -> dict[str, object]:
        """For `note`: the answer. `content`: the hash of a body, where it was not known before."""
        return answered(status, headers, model.model_dump_json(), content)

    async def keep(self, call: Call[Any, Any], answer: Answer) -> None:
        """Keep what is answered. Raises KeyLost."""
        body = b"" if answer.model is None else answer.model.model_dump_json().encode()
        store, text = call.store.idempotency, (answer.body or body).decode()
        if not await store.answer(self.id, answer.status, answer.headers, text):
            raise KeyLost

    @property
    def is_answered(self) -> bool:
        """The request was made before, and ended."""
        return self.row.status is not None

    def replay(self, content: str) -> Answer:
        """The answer of then, to the same body. Raises Problem for another one."""
        if self.row.content != content:
            raise _other_request()
        headers = json.loads(self.row.headers or "{}")
        body = (self.row.body or "").encode()
        return Answer(None, self.row.status or 200, {**headers, **REPLAYED}, body=body)


def hash_of(*parts: str) -> str:
    """Of texts, each of which counts for itself."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@contextlib.asynccontextmanager
async def held_key(call: Call[Any, Any], target: str, content: str | None) -> AsyncIterator[Held]:
    """Work under the request's key, or a new one that nobody can repeat. `target`: what the request is about,
    without its body; `content`: the body's hash, None while it is not known. Raises Problem when another
    request works under the key, or was another one. A request that fails gives its key up again.
    """
    store, clock = call.store.idempotency, call.parts.clock
    # No key that is given has a blank.
    name = key_of(call.headers) or f" {uuid.uuid4()}"
    key = KeyId(call.caller.token_id, name, uuid.uuid4().hex)
    row = await store.take(key, target=target, content=content, now_ms=clock(), lease_ms=LEASE_MS)
    if row.target != target:
        raise _other_request()
    if row.status is not None:
        yield Held(key, row)
        return
    if row.owner != key.owner:
        raise _in_progress(row, clock())
    keeping = asyncio.create_task(_keep(call, key), name="idempotency key")
    try:
        yield Held(key, row)
    except KeyLost:
        raise Problem(CONFLICT, "another request goes on under this key: repeat yours to see how") from None
    finally:
        keeping.cancel()
        # Does nothing where something was changed under it.
        with contextlib.suppress(StoreUnavailable):
            await asyncio.shield(store.release(key))


async def answer_once(call: Call[Any, Any], route: Route) -> Answer:
    """What a handler returns, or has returned to the same request before."""
    target = hash_of(route.method, route.path, call.params.model_dump_json())
    content = hash_of("" if call.body is None else call.body.model_dump_json())
    async with held_key(call, target, content) as key:
        if key.is_answered:
            return key.replay(content)
        call.key = key
        result = await route.handler(call)
        answer = result if isinstance(result, Answer) else Answer(cast("BaseModel", result))
        await key.keep(call, answer)
        return answer


async def once(call: Call[Any, Any], change: Callable[[], Awaitable[Any]]) -> Any:
    """The result of a change, which is JSON, and False where nothing was changed. Where an earlier request
    with the same key made it, its result of then: so whoever comes after a process that died between change
    and answer changes nothing again."""
    key = call.key
    if key is None:
        return await change()
    if key.row.progress is not None:
        return json.loads(key.row.progress)
    with key.note(lambda result: None if result is False else {"progress": json.dumps(result)}):
        return await change()


async def _keep(call: Call[Any, Any], key: KeyId) -> None:
    while True:
        await asyncio.sleep(LEASE_MS / 3000)
        try:
            if not await call.store.idempotency.prolong(key, until_ms=call.parts.clock() + LEASE_MS):
                return
        except StoreUnavailable as error:
            log.info("idempotency_key_not_prolonged", error=type(error).__name__)


def _other_request() -> Problem:
    return Problem(INVALID, _OTHER, errors=[FieldError(field=HEADER, code="key_reused", remedy=_OTHER)])


def _in_progress(row: KeyRow, now_ms: int) -> Problem:
    wait_s = min(LEASE_MS, max(1_000, row.lease_until_ms - now_ms)) // 1000
    detail = "a request with this key goes on: wait as Retry-After says, and repeat it for its answer"
    going_on = FieldError(field=HEADER, code="in_progress", remedy=detail)
    return Problem(CONFLICT, detail, errors=[going_on], headers={"Retry-After": str(wait_s)})

"""POST /v1/runs: a run from JSON, or from an upload of any size that is stored as it comes.

Nothing of a run is sent before its body has ended; one that is refused, or breaks off, leaves no run behind.
"""

import asyncio
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import structlog
from pydantic import BaseModel, Field

from app.api.fields import Id, Time
from app.api.idempotency import Held, hash_of, held_key
from app.api.native.accounts import account_forecast
from app.api.native.forecast_model import AccountForecast
from app.api.native.new_run import NewRunBody, NewRunParams, RunFields, new_run_of, refuse_query_with_body
from app.api.native.prompt_body import PromptBody, listed, reader_of, uploaded
from app.api.native.records_read import Read, read_of, refuse_if_not_begun, said_as_problems
from app.api.native.visible import visible_account
from app.api.route import Answer, Call, Route, Upload, Uploads
from app.api.upload import InPieces, digest_of
from app.domain.access import Scope
from app.domain.task import new_id
from app.domain.time_format import iso_day
from app.prompts.reader import Defaults, PromptReader
from app.services.load import Loaded, NewRun, load_run
from app.services.try_out import try_out

log = structlog.get_logger(__name__)

JSON_BYTES_MAX = 8 << 20
"""Some thousand prompts; more are uploaded."""


class Webhook(BaseModel):
    """Where results are posted to."""

    url: str
    secret: str | None = Field(
        description="That of a new URL, told this once; null: it has one already, or it is the token's."
    )


class NewRunAnswer(Read):
    """A run that is stored, and will be sent."""

    id: Id
    name: str
    account: str
    reused: int = Field(description="Tasks that an equal, recent result answers for nothing.")
    webhook: Webhook | None
    created_at: Time


class TriedOut(Read):
    """What a run would be. Nothing is stored."""

    forecast: AccountForecast = Field(description="Of the account as it stands, without this run.")


async def create_run(call: Call[NewRunParams, NewRunBody | Upload]) -> Answer:
    """Store the prompts of a body as a run, and wake the workers."""
    params, body = call.params, call.body
    fields: RunFields = params
    if isinstance(body, Upload):
        source = uploaded(params, body)
    else:
        refuse_query_with_body(params)
        fields, source = body, listed(body)
    now_ms = call.parts.clock()
    new, defaults = new_run_of(call, fields, now_ms, new_id(now_ms)[-6:])
    if params.dry_run:
        return Answer(await _tried_out(call, new, defaults, source))
    target = hash_of("POST /v1/runs", source.kind, params.model_dump_json())
    async with held_key(call, target, source.content) as key:
        if key.is_answered:
            return key.replay(source.content or await digest_of(body))  # type: ignore[arg-type]
        if key.row.run_id is not None:
            # Of a request whose process died.
            await call.store.runs.discard_run(key.row.run_id)
        answer = await _stored(call, new, defaults, source, key)
    call.parts.wakes.soon()
    return answer


async def _stored(
    call: Call[NewRunParams, NewRunBody | Upload],
    new: NewRun,
    defaults: Defaults,
    body: PromptBody,
    key: Held,
) -> Answer:
    reader = reader_of(body, defaults)
    seal = _Seal(call, new, body, reader, key)
    try:
        with said_as_problems():
            loaded = await load_run(
                call.store, InPieces(iter(reader)), new, sha256=body.sha256, clock=call.parts.clock, seal=seal
            )
        refuse_if_not_begun(loaded, new, body)
    except BaseException:
        await _discard(call, seal.run_id)
        raise
    call.subject = loaded.run_id
    return Answer(seal.answer, 201, seal.headers)


async def _discard(call: Call[NewRunParams, NewRunBody | Upload], run_id: str | None) -> None:
    """What is left of a run that is refused. Should it fail, whoever goes on under the key does it."""
    if run_id is None:
        return
    try:
        await asyncio.shield(call.store.runs.discard_run(run_id))
    except Exception as error:
        log.warning("refused_run_not_discarded", run=run_id, error=type(error).__name__)


async def _tried_out(
    call: Call[NewRunParams, NewRunBody | Upload], new: NewRun, defaults: Defaults, body: PromptBody
) -> TriedOut:
    reader = reader_of(body, defaults)
    with said_as_problems():
        loaded = await try_out(InPieces(iter(reader)), new, iso_day(call.parts.clock()))
        await body.drain()
    forecast = await account_forecast(call, visible_account(call, new.account))
    return TriedOut(**read_of(loaded, reader, body), forecast=forecast)


@dataclass(slots=True)
class _Seal:
    """Writes the key with the run: that it is made, and the answer with its beginning."""

    call: Call[NewRunParams, NewRunBody | Upload]
    new: NewRun
    body: PromptBody
    reader: PromptReader
    key: Held
    run_id: str | None = None
    answer: NewRunAnswer | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def made(self, run_id: str) -> AbstractContextManager[None]:
        self.run_id = run_id
        return self.key.note(lambda _: {"run_id": run_id})

    async def begun(self, loaded: Loaded) -> AbstractContextManager[None]:
        new = self.new
        # The hash is that of all of it, also where the reader gave up before the end.
        await self.body.drain()
        await self.call.look_again()
        self.headers = {"Location": f"/v1/runs/{loaded.run_id}"}
        self.answer = NewRunAnswer(
            **read_of(loaded, self.reader, self.body),
            id=loaded.run_id,
            name=new.name,
            account=new.account,
            reused=loaded.reused,
            webhook=await self._webhook(loaded.run_id),
            created_at=self.call.parts.clock(),
        )
        row = self.key.answer(201, self.headers, self.answer, self.body.sha256())
        return self.key.note(lambda has_begun: row if has_begun else None)

    async def _webhook(self, run_id: str) -> Webhook | None:
        push_to = self.new.push_to
        if push_to is None:
            return None
        secret = await self.call.store.relay.secret_of_run(run_id)
        is_new = not push_to.token_id and secret == push_to.secret
        return Webhook(url=push_to.url, secret=secret if is_new else None)


ROUTES = (
    Route(
        "POST",
        "/v1/runs",
        create_run,
        "Store prompts as a run, and send them",
        {200: TriedOut, 201: NewRunAnswer},
        scope=Scope.SUBMIT,
        params=NewRunParams,
        body=Uploads(
            {"text/csv": "A header and one record a line.", "application/x-ndjson": "One record a line."},
            json=NewRunBody,
        ),
        description=(
            "Records have the fields of a prompt file. An upload may have any size, and `Content-Encoding: "
            "gzip`; options stand in its query, those of a JSON body in the body. Nothing is sent before the "
            "body has ended. 200 answers `dry_run`."
        ),
        is_idempotent=False,
        action="run.create",
        problems=(404, 409),
        body_bytes_max=JSON_BYTES_MAX,
    ),
)

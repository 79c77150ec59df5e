"""POST /v1/runs: a run from JSON, or from an upload of any size that is stored as it comes.

Nothing of a run is sent before its body has ended; one that is refused, or breaks off, leaves no run behind.
"""

import asyncio
import contextlib
import io
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientError
from pydantic import BaseModel, Field

from app.api.fields import Credits, Id, Time
from app.api.idempotency import Held, hash_of, held_key
from app.api.native.accounts import account_forecast
from app.api.native.forecast_model import AccountForecast
from app.api.native.new_run import (
    NewRunBody,
    NewRunParams,
    RunFields,
    in_words_of_api,
    new_run_of,
    refuse_query_with_body,
)
from app.api.native.visible import visible_account
from app.api.problems import CONFLICT, INVALID, MALFORMED, FieldError, Problem
from app.api.route import Answer, Call, Route, Upload, Uploads
from app.api.upload import BodyFile, InPieces, content_of, digest_of
from app.domain.access import Scope
from app.domain.remarks import Remark, Remarks
from app.domain.task import new_id
from app.domain.text import agreeing, counted
from app.domain.time_format import iso_day
from app.ports import NameTaken
from app.prompts.reader import DamagedError, Defaults, PromptReader, Reading, read_prompts
from app.services.load import Loaded, NewRun, load_run
from app.services.try_out import try_out

UPLOADS = {"text/csv": "csv", "application/x-ndjson": "jsonl"}
ERRORS_MAX = 100
JSON_BYTES_MAX = 8 << 20
"""Some thousand prompts; more are uploaded."""


class Repeats(BaseModel):
    """Records that ask for several samples, and the tasks of those."""

    records: int
    tasks: int


class Read(BaseModel):
    """What became of the records of a body."""

    tasks: int
    estimated: Credits = Field(description="What they may cost, by our price list.")
    duplicates: int = Field(description="Records that ask what an earlier one asks: kept, or merged into it.")
    repeats: Repeats
    own_columns: list[str] = Field(description="Columns that are not ours: kept with the tasks, not sent.")
    bad_records: int = Field(description="Left out; `errors` names up to 100 faults.")
    errors: list[FieldError]
    errors_unnamed: int
    read_as: str | None = Field(description="What was taken for granted about the bytes; null: nothing.")


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


@dataclass(slots=True)
class _Body:
    """What a request brings, as a source of prompts."""

    kind: str
    """Of body, as the key's target has it."""
    file: BodyFile | io.BytesIO
    reading: Reading
    content: str | None
    """Its hash; None: known at its end."""
    upload: Upload | None = None

    def sha256(self) -> str:
        return self.content or (self.file.sha256() if isinstance(self.file, BodyFile) else "")

    async def drain(self) -> None:
        if isinstance(self.file, BodyFile):
            await self.file.drain()


async def create_run(call: Call[NewRunParams, NewRunBody | Upload]) -> Answer:
    """Store the prompts of a body as a run, and wake the workers."""
    params, body = call.params, call.body
    fields: RunFields = params
    if isinstance(body, Upload):
        source = _uploaded(params, body)
    else:
        refuse_query_with_body(params)
        fields, source = body, _listed(body)
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
    await call.parts.wake()
    return answer


async def _stored(
    call: Call[NewRunParams, NewRunBody | Upload], new: NewRun, defaults: Defaults, body: _Body, key: Held
) -> Answer:
    reader = _reader(body, defaults)
    seal = _Seal(call, new, body, reader, key)
    try:
        with _said_as_problems():
            loaded = await load_run(
                call.store, InPieces(iter(reader)), new, sha256=body.sha256, clock=call.parts.clock, seal=seal
            )
        _refuse_if_not_begun(loaded, new, body)
    except BaseException:
        await _discard(call, seal.run_id)
        raise
    call.subject = loaded.run_id
    return Answer(seal.answer, 201, seal.headers)


async def _discard(call: Call[NewRunParams, NewRunBody | Upload], run_id: str | None) -> None:
    """What is left of a run that is refused. Should it fail, whoever goes on under the key does it."""
    if run_id is not None:
        with contextlib.suppress(Exception):
            await asyncio.shield(call.store.runs.discard_run(run_id))


async def _tried_out(
    call: Call[NewRunParams, NewRunBody | Upload], new: NewRun, defaults: Defaults, body: _Body
) -> TriedOut:
    reader = _reader(body, defaults)
    with _said_as_problems():
        loaded = await try_out(InPieces(iter(reader)), new, iso_day(call.parts.clock()))
        await body.drain()
    forecast = await account_forecast(call, visible_account(call, new.account))
    return TriedOut(**_read(loaded, reader, body), forecast=forecast)


@dataclass(slots=True)
class _Seal:
    """Writes the key with the run: that it is made, and the answer with its beginning."""

    call: Call[NewRunParams, NewRunBody | Upload]
    new: NewRun
    body: _Body
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
            **_read(loaded, self.reader, self.body),
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


def _read(loaded: Loaded, reader: PromptReader, body: _Body) -> dict[str, Any]:
    errors, unnamed = _errors(loaded.bad, body)
    return {
        "tasks": loaded.tasks,
        "estimated": loaded.estimate,
        "duplicates": loaded.duplicates,
        "repeats": Repeats(records=loaded.repeated, tasks=loaded.samples),
        "own_columns": reader.own_columns,
        "bad_records": loaded.bad_lines,
        "errors": errors,
        "errors_unnamed": unnamed,
        "read_as": in_words_of_api(reader.remark) if reader.remark else None,
    }


def _uploaded(params: NewRunParams, upload: Upload) -> _Body:
    charset = upload.headers.get("Content-Type", "").lower().partition("charset=")[2].strip('" ')
    encoding = params.encoding or charset.partition(";")[0] or None
    reading = Reading(encoding, params.delimiter, UPLOADS[upload.media_type])
    return _Body(upload.media_type, BodyFile(content_of(upload)), reading, None, upload)


def _listed(body: NewRunBody) -> _Body:
    """Its prompts as the lines of a file: so one set of rules holds for both."""
    records = ({"prompt": given} if isinstance(given, str) else given for given in body.prompts)
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    # Half of a character is the reader's to refuse.
    file = io.BytesIO(text.encode(errors="surrogatepass"))
    return _Body("application/json", file, Reading(kind="jsonl"), hash_of(body.model_dump_json()))


def _reader(body: _Body, defaults: Defaults) -> PromptReader:
    try:
        return read_prompts(body.file, defaults, body.reading)  # type: ignore[arg-type]
    except ValueError:
        remedy = "leave it out, or name one that is known, such as utf-8 or cp1252; a delimiter is one sign"
        error = FieldError(field="encoding", code="wrong_value", remedy=remedy)
    raise Problem(INVALID, f"encoding, delimiter: {remedy}", errors=[error])


@contextlib.contextmanager
def _said_as_problems() -> Iterator[None]:
    try:
        yield
    except DamagedError as error:
        raise Problem(MALFORMED, f"the body cannot be unpacked; {error.remedy}") from None
    except NameTaken:
        remedy = "give another name, or leave it out"
        wrong = FieldError(field="name", code="name_taken", remedy=remedy)
        raise Problem(CONFLICT, f"another run has this name: {remedy}", errors=[wrong]) from None
    except ClientError:
        raise Problem(MALFORMED, "the body broke off before its end: send it again") from None


def _refuse_if_not_begun(loaded: Loaded, new: NewRun, body: _Body) -> None:
    """Raises Problem for a body of which nothing is sent."""
    if loaded.started:
        return
    errors, unnamed = _errors(loaded.bad, body)
    if loaded.duplicates_named:
        errors = [
            FieldError(
                line=None, field=None, code="duplicate", remedy=f"take out record {n}: it repeats {first}"
            )
            for n, first in loaded.duplicates_named
        ]
        unnamed = loaded.duplicates - len(errors)
        repeat = agreeing(loaded.duplicates, "repeats", "repeat")
        what = f"{counted(loaded.duplicates, 'record')} {repeat} others"
    elif loaded.tasks and not (new.strict and loaded.bad_lines):
        raise Problem(CONFLICT, "the run was cancelled while it was read: nothing of it is sent")
    elif loaded.bad_lines and new.strict:
        what = f"{counted(loaded.bad_lines, 'record')} cannot be used, and strict refuses all for one"
    else:
        what = "no record can be used"
    first = f": {errors[0].remedy}" if errors else ""
    raise Problem(INVALID, f"{what}; nothing is stored{first}", errors=errors, errors_unnamed=unnamed)


def _errors(bad: Remarks, body: _Body) -> tuple[list[FieldError], int]:
    """The first faults, a line each, and how many there are more."""
    is_upload = body.upload is not None
    named = [_error(remark, line, is_upload=is_upload) for remark in bad.kept for line in remark.lines]
    kept = named[:ERRORS_MAX]
    return kept, sum(remark.count for remark in bad.kept) + bad.others - len(kept)


def _error(remark: Remark, line: int, *, is_upload: bool) -> FieldError:
    """Without what is in quotes, which is the sender's own and may be a prompt."""
    problem = "" if "'" in remark.problem or '"' in remark.problem else remark.problem
    parts = [part for part in (problem, remark.remedy) if part]
    code = "missing" if remark.problem == "missing" else "wrong_value"
    remedy = in_words_of_api("; ".join(parts)) or "correct it"
    if is_upload:
        return FieldError(line=line, field=remark.field, code=code, remedy=remedy)
    return FieldError(field=f"prompts.{line - 1}.{remark.field}", code=code, remedy=remedy)


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

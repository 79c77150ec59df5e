"""The form with a file, read as it comes: the session's token first, then the options, then the file."""

import hmac
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import PurePath

from aiohttp import BodyPartReader, MultipartReader
from aiohttp.http import HttpProcessingError
from pydantic import ValidationError

from app.api.faults import field_errors
from app.api.native.new_run import RunFields, new_run_of
from app.api.problems import FORBIDDEN, INVALID, MALFORMED, FieldError, Problem, invalid
from app.api.route import Call, Params
from app.api.validate import arriving
from app.domain.text import storable
from app.domain.time_format import utc
from app.errors import UserError
from app.page.session import FORM_TOKEN
from app.page.visit import Visit
from app.prompts.reader import Defaults
from app.run_options import refuse_unusable_name
from app.services.load import NewRun

FILE = "file"
OPTIONS = (
    "name",
    "account",
    "task_type",
    "country",
    "budget",
    "repeats",
    "duplicates",
    "reuse_within",
    "batch",
    "strict",
    "pause_failing_engines",
)
FIELD_BYTES_MAX = 2_000
PARTS_MAX = 30
NAME_CHARS = 60


@dataclass(frozen=True, slots=True)
class Sent:
    """What a form says, with its file still to be read."""

    new: NewRun
    defaults: Defaults
    file: AsyncIterator[bytes]


async def read_form(visit: Visit) -> Sent:
    """All before the file. Raises Problem for a form of another session before anything else is looked at."""
    if visit.upload is None:
        raise Problem(MALFORMED, "use the page's own form")
    form = MultipartReader(visit.upload.headers, visit.upload.content)
    fields: dict[str, str] = {}
    try:
        for _ in range(PARTS_MAX):
            part = await arriving(form.next())
            if not isinstance(part, BodyPartReader):
                break
            if part.name == FILE:
                return _sent(visit, fields, _chunks(form, part), part.filename)
            if part.name not in (FORM_TOKEN, *OPTIONS) or part.name in fields:
                raise invalid("form", "unknown_parameter", "use the page's own form")
            fields[part.name] = await _text(part)
            _refuse_other_session(visit, fields)
    except (ValueError, HttpProcessingError):
        raise _unreadable() from None
    raise invalid(FILE, "missing", "choose a file")


def _refuse_other_session(visit: Visit, fields: dict[str, str]) -> None:
    if not hmac.compare_digest(fields.get(FORM_TOKEN, "").encode(), visit.form_token.encode()):
        raise Problem(FORBIDDEN, "this form is of another session: go back, reload the page, try again")


async def _text(part: BodyPartReader) -> str:
    text = bytearray()
    while chunk := await arriving(part.read_chunk(FIELD_BYTES_MAX)):
        text += chunk
        if len(text) > FIELD_BYTES_MAX:
            raise invalid(part.name or "", "too_long", "shorten it")
    return text.decode("utf-8", "replace").strip()


def _sent(visit: Visit, fields: dict[str, str], chunks: AsyncIterator[bytes], filename: str | None) -> Sent:
    _refuse_other_session(visit, fields)
    if not filename:
        raise invalid(FILE, "missing", "choose a file")
    given = {name: value for name, value in fields.items() if name in OPTIONS and value}
    try:
        asked = RunFields.model_validate(given)
    except ValidationError as error:
        errors = field_errors(error, given)
    else:
        # A browser that sends a path, as old ones do, means the file.
        file = storable(PurePath(filename.replace("\\", "/")).name, 200) or "file"
        call = Call(visit.parts, visit.caller, Params(), None, visit.request_id, visit.headers)
        name = asked.name or _name_of(file, visit.now_ms)
        new, defaults = new_run_of(call, asked.model_copy(update={"name": name}), visit.now_ms, "")
        return Sent(replace(new, source=file), defaults, chunks)
    raise _not_valid(errors)


def _not_valid(errors: list[FieldError]) -> Problem:
    return Problem(INVALID, f"{errors[0].field}: {errors[0].remedy}", errors=errors)


def _name_of(file: str, now_ms: int) -> str | None:
    """After the file, and new at any second; None: nobody could type it."""
    stem = re.sub(r"\W+", "-", PurePath(file.removesuffix(".gz")).stem).strip("-")[:NAME_CHARS]
    name = f"{stem}-{utc(now_ms):%Y%m%d-%H%M%S}"
    try:
        refuse_unusable_name("name", name)
    except UserError:
        return None
    return name


async def _chunks(form: MultipartReader, part: BodyPartReader) -> AsyncIterator[bytes]:
    try:
        while chunk := await arriving(part.read_chunk(1 << 16)):
            yield bytes(chunk)
        following = await arriving(form.next())
    except (ValueError, HttpProcessingError):
        raise _unreadable() from None
    if following is not None:
        # Nothing is passed over: it would have changed how the file is read.
        raise invalid("form", "file_first", "send the file after all other fields")


def _unreadable() -> Problem:
    return Problem(MALFORMED, "the form cannot be read to its end: send it again")

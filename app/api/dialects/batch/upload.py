"""POST of a file: a form of several parts, kept piece by piece as it comes."""

import hashlib
from dataclasses import dataclass, field

from aiohttp import BodyPartReader, MultipartReader
from aiohttp.http import HttpProcessingError

from app.api.dialects.batch.errors import wrong
from app.api.problems import MALFORMED, TOO_LARGE, Problem
from app.api.route import Call, Params, Upload
from app.api.validate import arriving, refuse_compressed
from app.config import DEFAULT_ACCOUNT
from app.domain.task import new_id
from app.store.write.batch_files import PIECE_BYTES

FILE_BYTES_MAX = 1 << 30
"""A million prompts of 1 KB."""
FIELD_BYTES_MAX = 1_000
PARTS_MAX = 10
KEPT_S, KEPT_S_MIN, KEPT_S_MAX = 30 * 86_400, 3_600, 30 * 86_400
"""As OpenAI keeps files of batches."""
_FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")


@dataclass(slots=True)
class _Read:
    """What has come of a form."""

    file_id: str
    fields: dict[str, str] = field(default_factory=dict)
    body_bytes: int = 0
    pieces: int = 0
    is_there: bool = False
    sha256: "hashlib._Hash" = field(default_factory=hashlib.sha256)


async def receive(call: Call[Params, Upload]) -> str:
    """Keep the file of a form; its id. Raises Problem, and then nothing of it is kept."""
    refuse_compressed(call.headers)
    read = _Read(new_id(call.parts.clock()))
    is_kept = False
    try:
        await _read_form(call, read)
        kept_s = _kept_s(read)
        await call.store.batch_files.end_file(
            read.file_id,
            body_bytes=read.body_bytes,
            sha256=read.sha256.hexdigest(),
            expires_at_ms=call.parts.clock() + kept_s * 1_000,
        )
        is_kept = True
    except (ValueError, HttpProcessingError):
        raise Problem(MALFORMED, "the form cannot be read: send it as multipart/form-data") from None
    finally:
        if not is_kept and read.is_there:
            await call.store.batch_files.delete_file(read.file_id)
    return read.file_id


async def _read_form(call: Call[Params, Upload], read: _Read) -> None:
    form = MultipartReader(call.body.headers, call.body.content)
    parts = 0
    while (part := await arriving(form.next())) is not None:
        parts += 1
        name = part.name if isinstance(part, BodyPartReader) else None
        if not isinstance(part, BodyPartReader) or parts > PARTS_MAX:
            raise wrong(None, "invalid_form", "the form has parts that are not known: send file and purpose")
        if name == "file":
            await _keep(call, part, read)
        elif name in read.fields:
            raise wrong(name, "given_twice", "the form has this field twice: send it once")
        elif name in _FIELDS:
            read.fields[name] = await _text(part, name)
        else:
            raise wrong(None, "unknown_parameter", "the form has a field that is not known: leave it out")


async def _text(part: BodyPartReader, name: str) -> str:
    text = bytearray()
    while chunk := await arriving(part.read_chunk(FIELD_BYTES_MAX)):
        text += chunk
        if len(text) > FIELD_BYTES_MAX:
            raise wrong(name, "too_long", "the field is too long: shorten it")
    return text.decode("utf-8", "replace").strip()


async def _keep(call: Call[Params, Upload], part: BodyPartReader, read: _Read) -> None:
    if read.is_there:
        raise wrong("file", "given_twice", "the form has two files: send one")
    files, read.is_there = call.store.batch_files, True
    account = call.caller.account or DEFAULT_ACCOUNT
    name = part.filename or "batch.jsonl"
    await files.begin_file(read.file_id, account=account, filename=name, now_ms=call.parts.clock())
    piece = bytearray()
    while chunk := await arriving(part.read_chunk(1 << 16)):
        piece += chunk
        read.body_bytes += len(chunk)
        if read.body_bytes > FILE_BYTES_MAX:
            raise Problem(TOO_LARGE, f"the file has more than {FILE_BYTES_MAX >> 20} MB: split it")
        if len(piece) + (1 << 16) > PIECE_BYTES:
            await _keep_piece(call, read, bytes(piece))
            piece.clear()
    if piece:
        await _keep_piece(call, read, bytes(piece))


async def _keep_piece(call: Call[Params, Upload], read: _Read, piece: bytes) -> None:
    read.sha256.update(piece)
    read.pieces += 1
    await call.store.batch_files.add_piece(read.file_id, read.pieces, piece)


def _kept_s(read: _Read) -> int:
    """How long it is kept. Raises Problem for a form that misses something."""
    if not read.is_there:
        raise wrong("file", "missing", "the form has no part named file: add it")
    if read.fields.get("purpose") != "batch":
        raise wrong("purpose", "invalid_purpose", "the purpose is not batch: write batch, there is no other")
    if not read.body_bytes:
        raise wrong("file", "empty_file", "the file is empty: write one request on each line")
    anchor, seconds = (read.fields.get(name) for name in _FIELDS[1:])
    if anchor is None and seconds is None:
        return KEPT_S
    is_known = anchor == "created_at" and seconds is not None and seconds.isascii() and seconds.isdecimal()
    if not is_known or len(seconds or "") > 9 or not KEPT_S_MIN <= int(seconds or 0) <= KEPT_S_MAX:
        remedy = f"write the anchor created_at, and {KEPT_S_MIN} to {KEPT_S_MAX} seconds"
        raise wrong("expires_after", "invalid_expires_after", remedy)
    return int(seconds or 0)

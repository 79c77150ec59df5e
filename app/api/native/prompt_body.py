"""What POST /v1/runs is given, as a source of prompts: a file, read as it comes, or prompts in JSON."""

import io
from dataclasses import dataclass

from app.api.idempotency import hash_of
from app.api.native.new_run import NewRunBody, NewRunParams, refuse_wrong
from app.api.route import Upload
from app.api.upload import BodyFile, content_of
from app.prompts.reader import Defaults, PromptReader, read_prompts
from app.prompts.reading import Reading, check_reading

UPLOADS = {"text/csv": "csv", "application/x-ndjson": "jsonl"}


@dataclass(slots=True)
class PromptBody:
    """What a request brings, as a source of prompts."""

    kind: str
    """Of body, as the key's target has it."""
    file: BodyFile | io.BytesIO
    reading: Reading
    content: str | None
    """Its hash; None: known at its end."""
    upload: Upload | None = None

    def sha256(self) -> str:
        """Of an upload: of what was read so far."""
        return self.content or (self.file.sha256() if isinstance(self.file, BodyFile) else "")

    async def drain(self) -> None:
        """Read an upload to its end."""
        if isinstance(self.file, BodyFile):
            await self.file.drain()


def uploaded(params: NewRunParams, upload: Upload) -> PromptBody:
    """A body that is read as it comes. Raises Problem."""
    charset = upload.headers.get("Content-Type", "").lower().partition("charset=")[2].strip('" ')
    encoding = params.encoding or charset.partition(";")[0] or None
    reading = Reading(encoding, params.delimiter, UPLOADS[upload.media_type], "the upload")
    return PromptBody(upload.media_type, BodyFile(content_of(upload)), reading, None, upload)


def listed(body: NewRunBody) -> PromptBody:
    """Its prompts as the lines of a file: so one set of rules holds for both."""
    file = io.BytesIO(b"".join(line + b"\n" for line in body.lines()))
    return PromptBody("application/json", file, Reading(kind="jsonl"), hash_of(body.model_dump_json()))


def reader_of(body: PromptBody, defaults: Defaults) -> PromptReader:
    """Reads its records. Raises Problem."""
    refuse_wrong(check_reading(body.reading))
    return read_prompts(body.file, defaults, body.reading)  # type: ignore[arg-type]

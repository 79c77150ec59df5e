"""/v1/files: what is uploaded, and the views over results."""

from app.api.dialects.batch.errors import wrong
from app.api.dialects.batch.ids import FileId, file_id, read_file_id
from app.api.dialects.batch.models import (
    BatchFileDeleted,
    BatchFileList,
    BatchFileObject,
    BatchFileParams,
    BatchFilesParams,
)
from app.api.dialects.batch.outputs import view
from app.api.dialects.batch.upload import receive
from app.api.dialects.batch.visible import visible_batch
from app.api.problems import not_found
from app.api.route import Call, Params, Stream, Upload
from app.store.write.batch_files import BatchFile

MEDIA_TYPE = "application/octet-stream"


async def upload_batch_file(call: Call[Params, Upload]) -> BatchFileObject:
    """Nothing is sent for it before a batch is made of it."""
    of = await receive(call)
    file = await _uploaded(call, FileId(of, None))
    call.subject = of
    return _file(file)


async def list_batch_files(call: Call[BatchFilesParams, None]) -> BatchFileList:
    """Uploaded ones only: a batch names its output and its error file."""
    asked = call.params
    after = None if asked.after is None else read_file_id(asked.after)
    rows: list[BatchFile] = []
    if asked.purpose in (None, "batch"):
        rows = await call.store.batch_files.files(
            call.caller.account, after.id if after else None, asked.limit + 1, newest=asked.order == "desc"
        )
    shown = [_file(row) for row in rows[: asked.limit]]
    first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
    return BatchFileList(data=shown, first_id=first, last_id=last, has_more=len(rows) > asked.limit)


async def get_batch_file(call: Call[BatchFileParams, None]) -> BatchFileObject:
    """One file. To tell the size of a view it is read to its end."""
    of = _read_id(call)
    if of.view is None:
        return _file(await _uploaded(call, of))
    row, _ = await visible_batch(call, of.id)
    size = 0
    async for chunk in view(call.store, row, of.view):
        size += len(chunk)
    return BatchFileObject(
        id=file_id(row.run_id, of.view),
        bytes=size,
        created_at=(row.finished_at_ms or row.created_at_ms) // 1_000,
        expires_at=None,
        filename=f"batch_{row.run_id.replace('-', '')}_{of.view}.jsonl",
        purpose="batch_output",
    )


async def get_batch_file_content(call: Call[BatchFileParams, None]) -> Stream:
    """The bytes of a file; of a view, its lines as they stand now."""
    of = _read_id(call)
    if of.view is not None:
        row, _ = await visible_batch(call, of.id)
        return Stream(MEDIA_TYPE, view(call.store, row, of.view))
    file = await _uploaded(call, of)
    return Stream(MEDIA_TYPE, call.store.batch_files.pieces(file.id))


async def delete_batch_file(call: Call[BatchFileParams, None]) -> BatchFileDeleted:
    """What was made of it stays."""
    of = _read_id(call)
    call.subject = of.id
    if of.view is not None:
        await visible_batch(call, of.id)
        raise wrong(
            "file_id", "not_deletable", "this file is a view over results: it goes when they are pruned"
        )
    file = await _uploaded(call, of)
    if await call.store.batch_reads.is_input(file.id):
        raise wrong("file_id", "file_in_use", "a batch is validating this file: delete it after that")
    await call.store.batch_files.delete_file(file.id)
    return BatchFileDeleted(id=call.params.file_id)


def _read_id(call: Call[BatchFileParams, None]) -> FileId:
    of = read_file_id(call.params.file_id)
    if of is None:
        raise not_found("file")
    return of


async def _uploaded(call: Call[Params, Upload] | Call[BatchFileParams, None], of: FileId) -> BatchFile:
    file = await call.store.batch_files.file(of.id)
    if file is None or not call.caller.sees(file.account):
        raise not_found("file")
    return file


def _file(file: BatchFile) -> BatchFileObject:
    return BatchFileObject(
        id=file_id(file.id),
        bytes=file.body_bytes,
        created_at=file.created_at_ms // 1_000,
        expires_at=file.expires_at_ms // 1_000,
        filename=file.filename,
        purpose="batch",
    )

"""The routes of the batch dialect."""

from typing import Any

from app.api.dialects.batch.batches import cancel_batch, create_batch, get_batch, list_batches
from app.api.dialects.batch.errors import BATCH
from app.api.dialects.batch.files import (
    delete_batch_file,
    get_batch_file,
    get_batch_file_content,
    list_batch_files,
    upload_batch_file,
)
from app.api.dialects.batch.models import (
    BatchCreate,
    BatchesParams,
    BatchFileDeleted,
    BatchFileList,
    BatchFileObject,
    BatchFileParams,
    BatchFilesParams,
    BatchList,
    BatchObject,
    BatchParams,
)
from app.api.route import Route, Streamed, Uploads
from app.domain.access import Scope

FORM = "multipart/form-data"
FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "format": "binary", "minLength": 1},
        "purpose": {"type": "string", "enum": ["batch"]},
    },
    "required": ["file", "purpose"],
    "additionalProperties": False,
}
_SHARED: dict[str, Any] = {"group": "the batch dialect", "dialect": BATCH}
_ID = "019ac5d01f2a7c398aa223e828c426f9"

ROUTES = (
    Route(
        "POST",
        "/v1/files",
        upload_batch_file,
        "Upload a file of requests",
        {200: BatchFileObject},
        scope=Scope.SUBMIT,
        body=Uploads(
            {FORM: "The parts `file` and `purpose` (batch); `expires_after[…]` as OpenAI has it."},
            form=FORM_SCHEMA,
        ),
        description="JSON lines of `custom_id`, `method` (POST), `url` (the batch's endpoint) and `body` "
        "(what the engine is asked). Kept for 30 days, or as `expires_after` says.",
        is_idempotent=False,
        action="file.create",
        **_SHARED,
    ),
    Route(
        "GET",
        "/v1/files",
        list_batch_files,
        "List uploaded files",
        {200: BatchFileList},
        scope=Scope.READ,
        params=BatchFilesParams,
        **_SHARED,
    ),
    Route(
        "GET",
        "/v1/files/{file_id}",
        get_batch_file,
        "Show a file",
        {200: BatchFileObject},
        scope=Scope.READ,
        params=BatchFileParams,
        is_long=True,
        **_SHARED,
    ),
    Route(
        "GET",
        "/v1/files/{file_id}/content",
        get_batch_file_content,
        "Read a file",
        {200: Streamed("application/octet-stream", "The bytes of the file.")},
        scope=Scope.READ,
        params=BatchFileParams,
        description="An output file has the answers in the order of settlement, an error file what has none "
        "in the order of the input. Both are views over the results as they stand.",
        **_SHARED,
    ),
    Route(
        "DELETE",
        "/v1/files/{file_id}",
        delete_batch_file,
        "Delete an uploaded file",
        {200: BatchFileDeleted},
        scope=Scope.SUBMIT,
        params=BatchFileParams,
        action="file.delete",
        is_long=True,
        **_SHARED,
    ),
    Route(
        "POST",
        "/v1/batches",
        create_batch,
        "Make a batch of a file",
        {200: BatchObject},
        scope=Scope.SUBMIT,
        body=BatchCreate,
        description="A batch is a run: `tallyhook report` and all other commands know it by its name, which "
        "is that of its file. Sent again under the same `Idempotency-Key`, or with the header by which "
        "OpenAI's clients say that they repeat themselves, it is the same batch.",
        is_idempotent=False,
        action="batch.create",
        problems=(404,),
        examples={
            "request": {
                "input_file_id": f"file-{_ID}",
                "endpoint": "/v1/monitor/gemini",
                "completion_window": "24h",
            }
        },
        **_SHARED,
    ),
    Route(
        "GET",
        "/v1/batches",
        list_batches,
        "List batches, newest first",
        {200: BatchList},
        scope=Scope.READ,
        params=BatchesParams,
        **_SHARED,
    ),
    Route(
        "GET",
        "/v1/batches/{batch_id}",
        get_batch,
        "Show where a batch stands",
        {200: BatchObject},
        scope=Scope.READ,
        params=BatchParams,
        **_SHARED,
    ),
    Route(
        "POST",
        "/v1/batches/{batch_id}/cancel",
        cancel_batch,
        "Cancel a batch",
        {200: BatchObject},
        scope=Scope.SUBMIT,
        params=BatchParams,
        action="batch.cancel",
        is_long=True,
        **_SHARED,
    ),
)

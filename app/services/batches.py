"""Files of the batch dialect become runs, read by whichever process comes by.

A batch is `validating` while its file is read into its run. Whoever looks at one that nobody reads takes it
up where it was left (load.py), so it survives the process that made it.
"""

import asyncio
import dataclasses
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from app.domain.own_columns import BadLine
from app.domain.remarks import Remark, shown, unquoted
from app.domain.source_change import SourceChanged
from app.domain.task import TaskSpec
from app.logger import get_logger
from app.ports import Clock, StoreUnavailable
from app.services.load import Loaded, NewRun, load_run

if TYPE_CHECKING:
    from app.store import Store

log = get_logger(__name__)

ReadFile = Callable[[AsyncIterator[bytes], str], AsyncIterator[list[TaskSpec | BadLine]]]
"""Tasks and bad lines of a file, of its bytes and the endpoint of its batch."""
DUPLICATE = "duplicate_custom_id"
LEASE_MS = 60_000
"""For so long nobody else reads the file of a batch. Two that read it at once do no harm."""


class BatchLoads:
    """The files that this process reads into their runs."""

    def __init__(self, read: ReadFile) -> None:
        self._read = read
        self._owner = uuid.uuid4().hex
        self._loads: dict[str, asyncio.Task[None]] = {}

    def start(
        self, store: "Store", clock: Clock, wake: Callable[[], None], run_id: str, file_id: str, endpoint: str
    ) -> None:
        """Read a file into its run, unless that is being done."""
        if run_id in self._loads:
            return
        work = self._load(store, clock, wake, run_id, file_id, endpoint)
        task = self._loads[run_id] = asyncio.create_task(work, name="batch load")
        task.add_done_callback(lambda _: self._loads.pop(run_id, None))

    async def _load(
        self, store: "Store", clock: Clock, wake: Callable[[], None], run_id: str, file_id: str, endpoint: str
    ) -> None:
        lease, now_ms = f"batch {run_id}", clock()
        try:
            if not await store.runs.acquire_lease(
                lease, self._owner, until_ms=now_ms + LEASE_MS, now_ms=now_ms
            ):
                return
            try:
                await load_batch(store, clock, self._read, run_id, file_id, endpoint)
            finally:
                await store.runs.release_lease(lease, self._owner)
            wake()
        except SourceChanged:
            log.info("batch_cancelled_while_read", run_id=run_id)
        except StoreUnavailable as error:
            log.warning("batch_not_read", run_id=run_id, error=type(error).__name__)
        except Exception as error:
            log.exception("batch_load_failed", run_id=run_id, error=type(error).__name__)

    async def close(self) -> None:
        """Stop reading; whoever looks at these batches next goes on."""
        for task in list(self._loads.values()):
            task.cancel()
        await asyncio.gather(*self._loads.values(), return_exceptions=True)


async def load_batch(
    store: "Store", clock: Clock, read: ReadFile, run_id: str, file_id: str, endpoint: str
) -> None:
    """Read a file into its run and let it begin; or refuse the batch, and leave no run behind. Raises as
    load_run does."""
    file = await store.batch_files.file(file_id)
    if file is None:
        gone: dict[str, object] = {
            "code": "file_not_found",
            "line": None,
            "message": "the file is deleted",
            "param": None,
        }
        await store.batches.refuse_batch(run_id, json.dumps([gone]), clock())
        return
    loaded = await load_run(
        store,
        read(store.batch_files.pieces(file_id), endpoint),
        NewRun(file.filename, f"batch file {file.filename}", strict=True),
        sha256=lambda: file.sha256,
        clock=clock,
        resume=run_id,
    )
    if not loaded.started and loaded.bad_lines:
        await store.batches.refuse_batch(run_id, json.dumps(_errors(loaded)), clock())


def _errors(loaded: Loaded) -> list[dict[str, object]]:
    return [_error(remark) for remark in loaded.bad.kept]


def _error(remark: Remark) -> dict[str, object]:
    code, said = _code(remark.field, remark.problem), unquoted(remark.problem, remark.remedy)
    if code == DUPLICATE:
        # The other line is what helps, and not the id.
        said = f"{remark.problem.rpartition(' is ')[2]}; give each line one of its own"
    field = shown(remark.field)
    where = dataclasses.replace(remark, field=field).where
    return {
        "code": code,
        "line": remark.line,
        "message": f"{where}: {said or 'correct it'}",
        "param": None if field in ("line", "file") else field,
    }


def _code(field: str, problem: str) -> str:
    if field == "custom_id" and "is the custom_id of" in problem:
        return DUPLICATE
    if problem == "no field of a line" or problem.endswith(" does not take it"):
        return "unknown_field"
    if field == "url":
        return "mismatched_url" if "another" in problem else "invalid_url"
    return {"line": "invalid_json_line", "file": "empty_file", "method": "invalid_method"}.get(
        field, "invalid_request"
    )

"""/v1/runs/{run_id}/results: the results of a run as JSON lines, in the order of settlement."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.fields import Credits, Id, Time, Whole, exact
from app.api.native.runs import RunParams
from app.api.native.visible import visible_run
from app.api.route import Call, Route, Stream, Streamed
from app.domain.access import Scope
from app.store import Store
from app.views.export_rows import row_line

SEQ_MAX = (1 << 63) - 1
CHUNK_BYTES = 128 << 10
"""Lines that are sent at once."""


class Result(BaseModel):
    """One attempt of a task, as it was settled."""

    model_config = ConfigDict(extra="forbid")

    seq: int = Field(description="Its place in the order of settlement; `?after=` goes on behind it.")
    run_id: Id
    run_name: str
    account: str
    stored_at: Time
    ordinal: int = Field(description="Of the task in the run's source.")
    task_id: Id
    custom_id: str | None
    metadata: dict[str, Any] | None = Field(description="The own columns of its record.")
    sample: int | None = Field(
        description="Which of several samples of one record; null: it is the only one."
    )
    repeats: int | None
    attempt: int
    task_type: str
    payload: dict[str, Any]
    priority: int
    state: str
    verdict: str | None
    credits_estimate: Credits
    credits_to_charge: Credits | None
    credits_charged: Credits | None = Field(description="For this attempt; null: unknown.")
    provider_task_id: str | None
    error_code: str | None
    error_message: str | None
    submitted_at: Time | None
    settled_at: Time | None
    settled_by: str | None
    reused_from: Id | None
    response: Any = Field(description="The answer as it came; null: none, or its body was pruned.")
    answer_sha256: str | None
    response_note: str | None = Field(description="Why there is no response though there was one.")


class ResultsParams(RunParams):
    """Where to go on."""

    after: Annotated[
        Whole, Field(ge=0, le=SEQ_MAX, description="`seq` of the last result that is known already.")
    ] = 0


async def list_results(call: Call[ResultsParams, None]) -> Stream:
    """Up to the last one that is settled when the stream comes there."""
    run = (await visible_run(call, call.params.run_id)).run
    return Stream("application/x-ndjson", _lines(call.reads, run.id, call.params.after))


async def _lines(store: Store, run_id: str, after: int) -> AsyncIterator[bytes]:
    async for rows in store.run_results.results_of_run(run_id, after):
        chunk = bytearray()
        for row in rows:
            chunk += row_line(row, exact)
            if len(chunk) >= CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
        if chunk:
            yield bytes(chunk)


ROUTES = (
    Route(
        "GET",
        "/v1/runs/{run_id}/results",
        list_results,
        "Stream results of a run, in the order of settlement",
        {
            200: Streamed(
                "application/x-ndjson", "One result on each line, each ended by a line break.", Result
            )
        },
        scope=Scope.READ,
        params=ResultsParams,
        description="Ends when no more is settled; ask again with `?after=` the last `seq` for what came "
        "since. An answer that was cut off has no end of its chunks: go on behind its last whole line. Each "
        "attempt is a result of its own, also one that a retry replaced. Sent compressed where "
        "Accept-Encoding names zstd or gzip.",
    ),
)

"""Findings: how many of each kind each run has, each with its figures, and the archive of a run's dispute."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from htpy import div, h2, p, section

from app.api.native.books import finding_model
from app.api.native.runs import get_run
from app.api.pages import read_cursor, write_cursor
from app.api.problems import FORBIDDEN, Problem, not_found
from app.files.dispute_file import write_dispute
from app.page.findings.markup import finding_table, of_run, run_table
from app.page.parts.download import all_of_it
from app.page.parts.table import pager
from app.page.visit import Download, Drawn, PageRoute, Visit
from app.store.read.books_pages import COUNTED_MAX

FINDINGS_SHOWN = 50
CURSOR = "findings-back"
CHUNK_BYTES = 256 << 10


async def show_findings(visit: Visit) -> Drawn:
    """By kind and run, then one by one, the newest first; of one run, where one is named."""
    run_id, run = visit.values.get("run"), None
    if run_id is not None:
        run = await visit.ask(get_run, run_id=run_id)
    books, account = visit.parts.store.books_pages, visit.caller.account
    place = read_cursor(visit.values.get("cursor"), CURSOR, int)
    before = int(place[0]) if place else None
    kinds = await visit.read(lambda: books.findings_by_run(account))
    # Of others' findings it is not known here how many there are.
    are_all = not kinds or (account is None and sum(one.count for one in kinds) < COUNTED_MAX)
    page = await visit.read(lambda: books.findings_before(before, FINDINGS_SHOWN, account, run_id))
    cursor = None if page.is_last else write_cursor(CURSOR, page.through)
    found = [finding_model(row) for row in page.rows]
    return Drawn(
        "Findings",
        div[
            p(".lead")["What our books and the provider's reports do not agree about, with the evidence."],
            section(aria_labelledby="kinds")[
                h2("#kinds")["By run and kind"],
                run_table(visit, kinds),
                None if are_all else p(".dim")[f"Of the newest {COUNTED_MAX:,} findings."],
            ],
            section(aria_labelledby="each")[
                h2("#each")["Each of them"],
                of_run(run),
                finding_table(found),
                pager("/findings", visit.values, cursor) if found or cursor else None,
                all_of_it("findings", run=run_id or "") if found else None,
            ],
        ],
    )


async def download_dispute(visit: Visit) -> Download:
    """Every discrepancy of a run with its evidence, for the provider's support. Prompts and answers are in
    it. Raises Problem."""
    if visit.hides_prompts:
        raise Problem(FORBIDDEN, "prompts are hidden here, and they are in it: use tallyhook dispute")
    run = await visit.ask(get_run, run_id=visit.values["run_id"])
    return Download(f"dispute-{run.id[-8:]}.zip", "application/zip", await _archive(visit, run.id))


async def _archive(visit: Visit, run_id: str) -> AsyncIterator[bytes]:
    """Written to the end before the first byte is sent: a fault then is a page, and no broken file."""
    store = visit.parts.store
    timed = await store.run_pages.run_with_id(run_id, visit.caller.account)
    if timed is None:
        raise not_found("run")
    folder = tempfile.TemporaryDirectory(prefix="tallyhook-")
    path = Path(folder.name) / "dispute.zip"
    try:
        done = await write_dispute(store, visit.parts.settings, timed.run, path, visit.now_ms)
        if not done.count:
            raise not_found("discrepancy of this run")
    except BaseException:
        folder.cleanup()
        raise
    return _chunks(path, folder)


async def _chunks(path: Path, folder: "tempfile.TemporaryDirectory[str]") -> AsyncIterator[bytes]:
    with folder, path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


ROUTES: tuple[PageRoute, ...] = (
    PageRoute("GET", "/findings", show_findings, query=("cursor", "run"), nav="Findings"),
    PageRoute("GET", "/runs/{run_id}/dispute.zip", download_dispute),
)

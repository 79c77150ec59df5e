"""Submitting by a file: stored as it comes, shown with its price, and sent once somebody says so."""

from collections.abc import AsyncIterator

from aiohttp import ClientError

from app.api.native.asker import asker_of
from app.api.problems import CONFLICT, MALFORMED, Problem, not_found
from app.api.upload import BodyFile, InPieces
from app.domain.access import Scope
from app.domain.own_columns import BadLine
from app.domain.task import TaskSpec, new_id
from app.domain.text import counted
from app.page.submit.form import Sent, read_form
from app.page.submit.markup import form_page, found_page, refused_page
from app.page.visit import Drawn, GoTo, PageRoute, Result, Visit
from app.ports import NameTaken
from app.prompts.reader import DamagedError, read_prompts
from app.services import uploads
from app.services.uploads import Waiting


async def ask(visit: Visit) -> Drawn:
    """The form."""
    return Drawn("Submit", form_page(visit))


async def receive(visit: Visit) -> Result:
    """A file; where something of it can be sent, a page that asks whether it is to be."""
    waiting = await visit.receive(lambda: _received(visit))
    if waiting.run_id is None:
        return Drawn(f"Nothing of {waiting.found.file} is sent", refused_page(waiting.found), status=422)
    return GoTo(f"/submit/{waiting.id}")


async def show(visit: Visit) -> Result:
    """What it has and may cost."""
    waiting = await _waiting(visit)
    if waiting.has_begun:
        return GoTo(f"/runs/{waiting.run_id}")
    return Drawn(f"Send {counted(waiting.found.tasks, 'task')}?", found_page(visit, waiting))


async def begin(visit: Visit) -> GoTo:
    """Sent twice, it begins once."""
    waiting = await _waiting(visit)
    asker = asker_of(visit.caller, visit.request_id)
    await visit.read(lambda: uploads.begin(visit.parts.store, waiting, asker, visit.now_ms))
    visit.parts.wakes.soon()
    return GoTo(f"/runs/{waiting.run_id}")


async def discard(visit: Visit) -> GoTo:
    """Nothing of it stays."""
    upload_id, token_id = visit.values["upload_id"], visit.caller.token_id
    await visit.receive(lambda: uploads.discard(visit.parts.store, token_id, upload_id))
    return GoTo("/submit")


async def _received(visit: Visit) -> Waiting:
    sent = await read_form(visit)
    file = BodyFile(sent.file)
    try:
        return await _stored(visit, sent, file)
    except NameTaken:
        raise Problem(CONFLICT, "another run has this name: go back, and give another one") from None
    except ClientError:
        raise Problem(MALFORMED, "the file broke off before its end: send it again") from None
    except DamagedError as error:
        raise Problem(MALFORMED, f"the file cannot be unpacked; {error.remedy}") from None


async def _stored(visit: Visit, sent: Sent, file: BodyFile) -> Waiting:
    prompts = read_prompts(file, sent.defaults)  # type: ignore[arg-type]
    reader = uploads.Reader(file.sha256, lambda: list(prompts.own_columns), lambda: prompts.remark)
    return await uploads.receive(
        visit.parts.store,
        _to_its_end(InPieces(iter(prompts)), file),
        sent.new,
        reader,
        token_id=visit.caller.token_id,
        upload_id=new_id(visit.now_ms),
        clock=visit.parts.clock,
    )


async def _to_its_end(
    pieces: InPieces[TaskSpec | BadLine], file: BodyFile
) -> AsyncIterator[list[TaskSpec | BadLine]]:
    async for piece in pieces:
        yield piece
    await file.drain()


async def _waiting(visit: Visit) -> Waiting:
    store, upload_id = visit.parts.store, visit.values["upload_id"]
    token_id, now_ms = visit.caller.token_id, visit.now_ms
    found = await visit.read(lambda: uploads.find(store, token_id, upload_id, now_ms))
    if found is None or found.run_id is None:
        raise not_found("upload")
    return found


ROUTES = (
    PageRoute("GET", "/submit", ask, Scope.SUBMIT, nav="Submit"),
    PageRoute("POST", "/submit", receive, Scope.SUBMIT, has_file=True),
    PageRoute("GET", "/submit/{upload_id}", show, Scope.SUBMIT),
    PageRoute("POST", "/submit/{upload_id}/begin", begin, Scope.SUBMIT),
    PageRoute("POST", "/submit/{upload_id}/discard", discard, Scope.SUBMIT),
)

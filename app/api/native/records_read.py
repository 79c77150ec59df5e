"""What became of the records of a body, as an answer or as a problem says it."""

import contextlib
from collections.abc import Iterator
from typing import Any

from aiohttp import ClientError
from pydantic import BaseModel, Field

from app.api.fields import Credits
from app.api.native.new_run import in_words_of_api
from app.api.native.prompt_body import PromptBody
from app.api.problems import CONFLICT, INVALID, MALFORMED, FieldError, Problem
from app.domain.remarks import Remark, Remarks, unquoted
from app.domain.text import agreeing, counted
from app.ports import NameTaken
from app.prompts.reader import DamagedError, PromptReader
from app.services.load import Loaded, NewRun

ERRORS_MAX = 100


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


def read_of(loaded: Loaded, reader: PromptReader, body: PromptBody) -> dict[str, Any]:
    """The fields of Read."""
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


@contextlib.contextmanager
def said_as_problems() -> Iterator[None]:
    """What ends the reading of a body, as problems."""
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


def refuse_if_not_begun(loaded: Loaded, new: NewRun, body: PromptBody) -> None:
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


def _errors(bad: Remarks, body: PromptBody) -> tuple[list[FieldError], int]:
    """The first faults, a line each, and how many there are more."""
    is_upload = body.upload is not None
    named = [_error(remark, line, is_upload=is_upload) for remark in bad.kept for line in remark.lines]
    kept = named[:ERRORS_MAX]
    return kept, sum(remark.count for remark in bad.kept) + bad.others - len(kept)


def _error(remark: Remark, line: int, *, is_upload: bool) -> FieldError:
    code = "missing" if remark.problem == "missing" else "wrong_value"
    remedy = in_words_of_api(unquoted(remark.problem, remark.remedy)) or "correct it"
    if is_upload:
        return FieldError(line=line, field=remark.field, code=code, remedy=remedy)
    return FieldError(field=f"prompts.{line - 1}.{remark.field}", code=code, remedy=remedy)

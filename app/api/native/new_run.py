"""What a new run may be told, in a query or in a JSON body: as `submit` takes it, with the same rules."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, BeforeValidator, Field, PrivateAttr, WithJsonSchema

from app.api.fields import Whole
from app.api.native.visible import visible_account
from app.api.problems import INVALID, FieldError, Problem
from app.api.route import Body, Call, Params
from app.config import ACCOUNT_NAME
from app.domain.engines.rules import EngineProblem
from app.domain.task import REPEATS_MAX
from app.domain.time_format import utc
from app.errors import UserError
from app.prompts.reader import Defaults
from app.prompts.record import check_defaults
from app.relay_options import endpoint_option
from app.run_options import BATCH_MAX, NAME_CHARS_MAX, RunOptions, refuse_unusable_name
from app.services.load import NewRun

SOURCE = "api"
"""In place of a file."""
PROMPTS_MAX = 10_000
"""In a JSON body, which is read at once; uploads have no bound."""


class _Prompts(msgspec.Struct):
    prompts: list[msgspec.Raw]


_PROMPTS = msgspec.json.Decoder(_Prompts)
_OPTION = re.compile(r"--([a-z][a-z-]*)")


def _credits_text(value: Any) -> Any:
    if isinstance(value, float | bool):
        raise ValueError('write a whole number, or a decimal in a string such as "12.5"')
    if value == "":
        # Of whoever meant a number and has none, everything would be spent.
        raise ValueError("write a number of credits, or leave it out")
    return str(value) if isinstance(value, int) else value


CreditsText = Annotated[
    str,
    BeforeValidator(_credits_text),
    Field(max_length=60),
    WithJsonSchema({"type": ["string", "integer"], "minLength": 1, "examples": ["5000", "12.5"]}),
]


class RunFields(BaseModel):
    """Options of a run, and defaults for records that say nothing themselves."""

    name: Annotated[
        str | None, Field(max_length=NAME_CHARS_MAX, description="New; null: made from the time.")
    ] = None
    account: Annotated[
        str | None, Field(pattern=ACCOUNT_NAME, description="Default: the token's own, or `default`.")
    ] = None
    budget: Annotated[
        CreditsText | None, Field(description="Credits; the run pauses before it costs more. Null: no limit.")
    ] = None
    task_type: Annotated[str | None, Field(max_length=100, description="For records that name none.")] = None
    country: Annotated[str | None, Field(max_length=100, description="For records that name none.")] = None
    priority: Annotated[Whole, Field(ge=1, le=10, description="Higher is sent first.")] = 1
    repeats: Annotated[Whole, Field(ge=1, le=REPEATS_MAX, description="Samples of each record.")] = 1
    include: Annotated[
        str | None, Field(max_length=1_000, description="Extras for records that name none, by commas.")
    ] = None
    batch: Annotated[
        Whole | None, Field(ge=1, le=BATCH_MAX, description="Tasks of one call to the provider.")
    ] = None
    reuse_within: Annotated[
        str | None,
        Field(min_length=1, max_length=20, description="Take an equal result this young, such as `24h`."),
    ] = None
    duplicates: Annotated[
        Literal["keep", "merge", "error"], Field(description="What to do with records that ask the same.")
    ] = "keep"
    strict: Annotated[bool, Field(description="One bad record refuses all of it.")] = False
    pause_failing_engines: Annotated[
        bool, Field(description="Its tasks of an engine whose answers fail wait.")
    ] = False
    webhook_url: Annotated[
        str | None,
        Field(
            max_length=2_000,
            description="Where each result is posted to. Default: the token's own, if any; empty: nowhere.",
        ),
    ] = None

    def options(self, account: str) -> RunOptions:
        """The same, as the command line has it."""
        return RunOptions(
            task_type=self.task_type or "",
            country=self.country or "",
            priority=self.priority,
            include=(self.include,) if self.include else (),
            budget=self.budget or "",
            strict=self.strict,
            account=account,
            batch=self.batch,
            reuse_within=self.reuse_within or "",
            duplicates=self.duplicates,
            repeats=self.repeats,
            pause_failing_engines=self.pause_failing_engines,
        )


class NewRunParams(RunFields, Params):
    """Of an upload; with a JSON body only `dry_run` stands in the query."""

    dry_run: Annotated[bool, Field(description="Answer what it has and may cost, and store nothing.")] = False
    encoding: Annotated[str | None, Field(max_length=40, description="Of an upload that is no UTF-8.")] = None
    delimiter: Annotated[str | None, Field(max_length=10, description="Of the columns of a CSV.")] = None


class NewRunBody(RunFields, Body):
    """A run whose prompts come with it."""

    prompts: Annotated[
        list[str | dict[str, Any]],
        Field(
            min_length=1,
            max_length=PROMPTS_MAX,
            description="Each a prompt, or an object with the fields of a record of a prompt file.",
        ),
    ]
    _written: list[msgspec.Raw] = PrivateAttr(default_factory=list)

    def note_text(self, text: bytes) -> None:
        """Numbers of own columns are kept digit for digit."""
        self._written.extend(_PROMPTS.decode(text).prompts)

    def lines(self) -> Iterator[bytes]:
        """The prompts as records, as they were written where that is known."""
        for given, written in zip_longest(self.prompts, self._written):
            if isinstance(given, str):
                # Half of a character is the reader's to refuse.
                yield json.dumps({"prompt": given}, ensure_ascii=False).encode(errors="surrogatepass")
            elif written is None:
                yield json.dumps(given, ensure_ascii=False).encode(errors="surrogatepass")
            else:
                yield msgspec.json.format(bytes(written), indent=-1)


def new_run_of(call: Call[Any, Any], fields: RunFields, now_ms: int, tag: str) -> tuple[NewRun, Defaults]:
    """What is to be made, and the defaults of its records. `tag`: makes the name of a run that has none one
    of its own. Raises Problem."""
    options = fields.options(visible_account(call, fields.account))
    try:
        if fields.name is not None:
            refuse_unusable_name("--name", fields.name)
        name = fields.name or f"api-{utc(now_ms):%Y%m%d-%H%M%S}-{tag}"
        push_to = call.caller.push_to
        if fields.webhook_url is not None:
            push_to = endpoint_option(fields.webhook_url, None, call.parts.settings)
        new = replace(options.new_run(name, SOURCE), is_name_new=True, push_to=push_to)
    except UserError as error:
        problem = _option_problem(error)
    else:
        defaults = options.defaults()
        refuse_wrong(check_defaults(defaults))
        return new, defaults
    raise problem


def refuse_wrong(problems: Sequence[EngineProblem]) -> None:
    """Raises Problem for what is wrong with options, if anything is: without their problems themselves, which
    quote what was given."""
    errors = [
        FieldError(field=p.field, code="wrong_value", remedy=in_words_of_api(p.remedy)) for p in problems
    ]
    if errors:
        raise Problem(INVALID, f"{errors[0].field}: {errors[0].remedy}", errors=errors)


def in_words_of_api(text: str) -> str:
    """Options of commands as the fields that they are here."""
    return _OPTION.sub(lambda match: match[1].replace("-", "_"), text)


def _option_problem(error: UserError) -> Problem:
    """Without the message, which quotes what was given."""
    option = _OPTION.search(error.message)
    field = option[1].replace("-", "_") if option else None
    remedy = in_words_of_api(error.remedy or error.message)
    wrong = FieldError(field=field, code="wrong_value", remedy=remedy)
    return Problem(INVALID, f"{field}: {remedy}", errors=[wrong])


def refuse_query_with_body(params: NewRunParams) -> None:
    """Raises Problem for options in the query of a JSON body, which has them itself."""
    given = sorted(params.model_fields_set - {"dry_run"})
    if given:
        remedy = "write it into the body; only dry_run stands in the query"
        errors = [FieldError(field=name, code="belongs_in_body", remedy=remedy) for name in given]
        raise Problem(INVALID, f"{given[0]}: {remedy}", errors=errors)

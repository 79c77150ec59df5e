"""What an agent asks, read by the rules of prompt files: arguments of a new run, and what they come to."""

import io
import json
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.api.fields import Whole
from app.api.native.tasks import Country, Engine
from app.api.problems import INVALID, FieldError, Problem
from app.api.route import Params
from app.config import ACCOUNT_NAME
from app.domain import pricing
from app.domain.own_columns import BadLine
from app.domain.remarks import unquoted
from app.prompts.reader import Defaults, PromptReader, read_prompts

PROMPTS_MAX = 1_000
TASKS_MAX = 10_000
"""More are a file's: they would not fit an agent's call."""
REPEATS_MAX = 100
ERRORS_MAX = 20
_MEANT = {"task_type": "engine"}


def _unpacked(value: Any) -> Any:
    """Some agents send a list as a text of JSON."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


class Prompt(BaseModel):
    """One thing to ask. Further fields are those of a prompt file (state, city, pages, device, url, …); any
    other is kept with the task as your own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    prompt: Annotated[str | None, Field(description="The question; for Google the query.")] = None
    engine: Annotated[Engine | None, Field(description="Default: that of the run.")] = None
    country: Annotated[Country | None, Field(description="Two letters. Default: that of the run.")] = None
    custom_id: Annotated[
        str | None, Field(description="Your name of it, which comes back with its result; new in the run.")
    ] = None
    include: Annotated[
        list[str] | None, Field(description="Extras, such as markdown or html; some cost more.")
    ] = None

    def record(self) -> dict[str, Any]:
        """As a line of a prompt file has it."""
        given = self.model_dump(exclude_none=True)
        engine = given.pop("engine", None)
        return given if engine is None else given | {"task_type": engine}


class NewRunFields(Params):
    """What is asked, of whom."""

    prompts: Annotated[
        list[str | Prompt],
        BeforeValidator(_unpacked),
        Field(min_length=1, max_length=PROMPTS_MAX, description="Questions, or objects with more fields."),
    ]
    engine: Annotated[Engine | None, Field(description="Of prompts that name none.")] = None
    country: Annotated[Country | None, Field(description="Of prompts that name none.")] = None
    repeats: Annotated[Whole, Field(ge=1, le=REPEATS_MAX, description="Samples of each prompt.")] = 1
    priority: Annotated[Whole, Field(ge=1, le=10, description="Higher is sent first.")] = 1
    account: Annotated[
        str | None, Field(pattern=ACCOUNT_NAME, description="Default: the token's own, or `default`.")
    ] = None

    def reader(self) -> PromptReader:
        """Tasks and bad lines; line n is prompt n - 1."""
        records = ({"prompt": p} if isinstance(p, str) else p.record() for p in self.prompts)
        lines = "".join(json.dumps(record, ensure_ascii=True) + "\n" for record in records)
        defaults = Defaults(self.engine, self.country, self.priority, repeats=self.repeats)
        return read_prompts(io.BytesIO(lines.encode()), defaults)


@dataclass(slots=True)
class Asked:
    """What the prompts come to."""

    tasks: int = 0
    credits: Decimal = Decimal(0)
    tasks_of: Counter[str] = field(default_factory=Counter)
    credits_of: dict[str, Decimal] = field(default_factory=dict)


def priced(fields: NewRunFields, day: str) -> Asked:
    """Raises Problem for prompts that could not be sent. `day`: ISO, whose price list holds."""
    asked, bad = Asked(), list[BadLine]()
    for line in fields.reader():
        if isinstance(line, BadLine):
            bad.append(line)
            continue
        credits = pricing.estimate(line.task_type, line.payload, day)
        asked.tasks += 1
        asked.credits += credits
        asked.tasks_of[line.task_type] += 1
        asked.credits_of[line.task_type] = asked.credits_of.get(line.task_type, Decimal(0)) + credits
    if bad:
        raise bad_prompts([_fault(*line) for line in bad[:ERRORS_MAX]], len(bad))
    if asked.tasks > TASKS_MAX:
        remedy = f"make {TASKS_MAX:,} tasks at most, or let a person upload a file with tallyhook submit"
        raise bad_prompts([FieldError(field="prompts", code="too_long", remedy=remedy)], 1)
    return asked


def _fault(line: int, name: str, problem: str, remedy: str) -> FieldError:
    where = _MEANT.get(name, name)
    said = unquoted(problem, remedy).replace("--task-type", "engine")
    return FieldError(field=f"prompts.{line - 1}.{where}", code="wrong_value", remedy=said)


def bad_prompts(errors: list[FieldError], count: int) -> Problem:
    """Nothing is stored for one that is wrong."""
    more = f" (and {count - 1} more)" if count > 1 else ""
    return Problem(INVALID, f"{errors[0].field}: {errors[0].remedy}{more}; nothing is stored", errors=errors)

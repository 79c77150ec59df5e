"""Records that ask for several samples, as they are read."""

import io

import pytest

from app.domain.source_change import SourceChanged, StoredRecord, refuse_difference
from app.domain.task import REPEATS_MAX, TaskSpec
from app.prompts.reader import BadLine, Defaults, read_prompts
from app.run_options import RunOptions

ASKED = Defaults(task_type="GEMINI", country="DE")


def read(text: str, repeats: int = 1) -> list[TaskSpec | BadLine]:
    defaults = Defaults(task_type="GEMINI", country="DE", repeats=repeats)
    return list(read_prompts(io.BytesIO(text.encode()), defaults))


def numbers(found: list[TaskSpec | BadLine]) -> list[tuple[int, int, int, int]]:
    return [
        (spec.ordinal, spec.sample, spec.repeats, spec.record or spec.ordinal)
        for spec in found
        if isinstance(spec, TaskSpec)
    ]


def test_a_record_is_as_many_tasks_as_it_asks_for() -> None:
    found = read("prompt,repeats\na,2\nb,\nc,bad\nd,3\n")
    assert numbers(found) == [
        (1, 1, 2, 1),
        (2, 2, 2, 1),
        (3, 1, 1, 2),
        (5, 1, 3, 4),
        (6, 2, 3, 4),
        (7, 3, 3, 4),
    ]
    prints = [spec.fingerprint() for spec in found if isinstance(spec, TaskSpec)]
    assert prints[0] == prints[1] != prints[2], "samples ask the same"


def test_what_a_record_says_is_before_the_option() -> None:
    text = '{"prompt": "a", "repeats": 1}\n{"prompt": "b"}\n'
    assert [spec[2] for spec in numbers(read(text, repeats=2))] == [1, 2, 2]
    assert RunOptions(repeats=2).defaults().repeats == 2
    assert RunOptions.from_json(RunOptions(repeats=2).to_json()).repeats == 2
    assert RunOptions.from_json("{}").repeats == 1


@pytest.mark.parametrize(
    "value", ["0", "-1", "1.5", "three", "1000000000", str(REPEATS_MAX + 1), "1e3", "=2"]
)
def test_a_number_that_is_none_is_refused_with_its_line(value: str) -> None:
    (bad,) = read(f"prompt,repeats\na,1\nb,{value}\n")[1:]
    assert isinstance(bad, BadLine)
    remedy = "use a whole number of samples from 1 to 1,000"
    assert (bad.line, bad.field, bad.remedy) == (3, "repeats", remedy)


@pytest.mark.parametrize("value", ["0", "1.5", "true", "[2]", '"two"'])
def test_so_is_one_of_json(value: str) -> None:
    (bad,) = read(f'{{"prompt": "b", "repeats": {value}}}\n')
    assert isinstance(bad, BadLine)
    assert bad.field == "repeats"


def test_the_largest_number_is_taken_as_spreadsheets_write_it() -> None:
    assert len(read(f"prompt,repeats\na,{REPEATS_MAX}.0\n")) == REPEATS_MAX


@pytest.mark.parametrize("repeats", [0, -1, REPEATS_MAX + 1])
def test_a_wrong_default_is_refused(repeats: int) -> None:
    with pytest.raises(ValueError, match=r"repeats: .* is not a number of samples"):
        read("prompt\na\n", repeats)


@pytest.mark.parametrize("name", ["repeat", "samples", "repetitions"])
def test_another_word_for_it_is_asked_about(name: str) -> None:
    (bad,) = read(f"prompt,{name}\na,5\n")
    assert isinstance(bad, BadLine)
    assert "did you mean repeats?" in bad.remedy


def test_another_number_of_samples_is_another_source() -> None:
    def stored(spec: TaskSpec) -> StoredRecord:
        repeats = spec.repeats if spec.repeats > 1 and spec.sample == 1 else None
        return StoredRecord(spec.fingerprint(), spec.priority, repeats=repeats)

    specs = [spec for spec in read("prompt,repeats\na,2\na,1\n") if isinstance(spec, TaskSpec)]
    other = [spec for spec in read("prompt,repeats\na,1\na,2\n") if isinstance(spec, TaskSpec)]
    before = {spec.ordinal: stored(spec) for spec in specs}
    refuse_difference(specs, before, missing=None)
    with pytest.raises(SourceChanged, match="record 1 asks for another number of samples"):
        refuse_difference(other, before, missing=None)
    gone = before | {4: before[1]}
    with pytest.raises(SourceChanged, match="record 3 is in the run"):
        refuse_difference(specs, gone, missing=None)

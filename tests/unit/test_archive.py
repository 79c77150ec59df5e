"""The archive itself: what is listed, also when the lists go through files, and what a cell may hold."""

import csv
import gc
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from app.errors import UserError
from app.files.archive import SPOOLED_BYTES_MAX, open_archive, suffix_of

MADE_MS = 1_790_900_000_000


def archive_of(suffix: str, files: int) -> bytes:
    output = io.BytesIO()
    with open_archive(output, suffix, MADE_MS, ["n", "text"]) as archive:
        for n in range(files):
            archive.add(f"folder/{n}", b"%d" % n * 10)
            archive.note({"n": n, "text": "x" * 5_000})
        archive.finish("list", {"format": "test", "head": True})
    return output.getvalue()


def read(suffix: str, data: bytes) -> dict[str, bytes]:
    if suffix == ".zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize("count", [0, 1, 250])
def test_every_file_is_in_the_manifest(suffix: str, count: int) -> None:
    files = read(suffix, archive_of(suffix, count))
    manifest = json.loads(files.pop("manifest.json"))
    assert (manifest["format"], manifest["head"]) == ("test", True)
    assert [entry["path"] for entry in manifest["files"]] == list(files)
    for entry in manifest["files"]:
        data = files[entry["path"]]
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    lines = files["list.jsonl"].splitlines()
    assert [json.loads(line)["n"] for line in lines] == list(range(count))
    rows = list(csv.reader(io.StringIO(files["list.csv"].decode())))
    assert len(rows) == count + 1
    if count > 1:
        assert len(files["list.jsonl"]) > SPOOLED_BYTES_MAX, "it went through a temporary file"


def test_a_cell_is_no_formula_and_a_figure_stays_one() -> None:
    output = io.BytesIO()
    values = ["=1+1", "-cmd", "@x", "-1.5", "-2", "plain", None, ["a", "b"], 3]
    with open_archive(output, ".zip", MADE_MS, ["text"]) as archive:
        for value in values:
            archive.note({"text": value})
        archive.finish("list", {})
    rows = csv.reader(io.StringIO(read(".zip", output.getvalue())["list.csv"].decode()))
    shown = [row[0] if row else "" for row in rows][1:]
    assert shown == ["'=1+1", "'-cmd", "'@x", "-1.5", "-2", "plain", "", "a b", "3"]


@pytest.mark.parametrize("name", ["d.rar", "d", ".zip", "d.tar", "d.gz"])
def test_a_name_must_say_the_format(name: str) -> None:
    with pytest.raises(UserError, match="ends in neither"):
        suffix_of(Path(name))


def test_both_formats_are_known() -> None:
    assert suffix_of(Path("a/b.zip")) == ".zip"
    assert suffix_of(Path("b.tar.gz")) == ".tar.gz"


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_what_is_given_up_leaves_nothing_open(suffix: str, tmp_path: Path) -> None:
    """Or its end is written when it is collected, to a file that is closed: a traceback after the error."""
    with (
        pytest.raises(UserError),
        (tmp_path / "dispute").open("wb") as output,
        open_archive(output, suffix, MADE_MS, ["n"]) as archive,
    ):
        archive.add("one", b"1")
        raise UserError("away", "the archive is away")
    del archive
    gc.collect()

"""The messy-file set: files as spreadsheets, scripts and mails leave them. Each is read, or refused, as the
table says, with exactly the line that stands on standard error."""

import encodings.aliases
import gzip
import hashlib
import io
import random
from pathlib import Path
from typing import NamedTuple

import pytest

from app.domain.remarks import Remarks
from app.domain.task import TaskSpec
from app.prompts.encoding import read_encoding
from app.prompts.reader import BadLine, DamagedError, Defaults, PromptReader, Reading, read_prompts

CHATGPT = Defaults(task_type="CHATGPT", country="US")
CAFE = "Welches Café ist für Köln das beste?"
BOTH = "Quelle cœur, çà et là, coûte 5 €?"
SHEET = f"Prompt; Country \r\n{CAFE};DE\r\n{BOTH};FR\r\n"
TWO = [(CAFE, "DE"), (BOTH, "FR")]
TABS = SHEET.replace("; ", "\t").replace(";", "\t")
JSONL = f'{{"prompt":"{CAFE}","country":"DE"}}\n{{"prompt":"{BOTH}","country":"FR"}}\n'
CODES = "save it as UTF-8, or name it: --encoding cp1252, cp1250, cp1251, macroman, shift_jis or utf-16"


class Messy(NamedTuple):
    """A file, what is read of it, and what is said."""

    name: str
    content: bytes
    tasks: list[tuple[str, str]]
    """(prompt, country) of each."""
    said: str = ""
    """How it is read."""
    refused: str = ""
    """What is wrong with it."""


@pytest.fixture(autouse=True)
def short_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small files are longer than what is looked at."""
    monkeypatch.setattr("app.prompts.source.HEAD_BYTES", HEAD_BYTES)


HEAD_BYTES = 4 * 1024
SEMICOLONS = "columns separated by semicolons"
FORCED = "(--encoding and --delimiter can say otherwise)"

FILES = [
    Messy(
        "excel-de.csv",
        b"\xef\xbb\xbf" + SHEET.encode(),
        TWO,
        f"excel-de.csv is read as {SEMICOLONS} (--delimiter can say otherwise)",
    ),
    Messy(
        "excel-ansi.csv",
        SHEET.encode("cp1252"),
        TWO,
        f"excel-ansi.csv is read as Windows text (cp1252), {SEMICOLONS} {FORCED}",
    ),
    Messy(
        "unicode-text.txt",
        b"\xff\xfe" + TABS.encode("utf-16-le"),
        TWO,
        f"unicode-text.txt is read as UTF-16 (little-endian), columns separated by tabs {FORCED}",
    ),
    Messy(
        "big-endian.csv",
        b"\xfe\xff" + SHEET.replace(";", ",").encode("utf-16-be"),
        TWO[:1],
        "big-endian.csv is read as UTF-16 (big-endian) (--encoding can say otherwise)",
        "line 3: 4 fields, but the header has 2; put quotes around a text that contains commas",
    ),
    Messy(
        "no-mark.tsv",
        TABS.encode("utf-16-le"),
        TWO,
        "no-mark.tsv is read as UTF-16 (little-endian) (--encoding can say otherwise)",
    ),
    Messy(
        "no-mark-be.tsv",
        TABS.encode("utf-16-be"),
        TWO,
        "no-mark-be.tsv is read as UTF-16 (big-endian) (--encoding can say otherwise)",
    ),
    Messy("tabs.tsv", TABS.encode(), TWO),
    Messy("sep.csv", b"\xef\xbb\xbfsep=;\r\n" + SHEET.encode(), TWO),
    Messy(
        "bars.csv.gz",
        gzip.compress(SHEET.replace(";", "|").encode()),
        TWO,
        "bars.csv.gz is read as columns separated by bars (--delimiter can say otherwise)",
    ),
    Messy("packed.jsonl.gz", gzip.compress(JSONL[:60].encode()) + gzip.compress(JSONL[60:].encode()), TWO),
    Messy("packed", gzip.compress(JSONL.encode()), TWO, "packed is read as packed with gzip"),
    Messy(
        "macintosh.csv",
        'prompt,country\r"Welches Café ist für\nKöln das beste?",DE\r'.encode(),
        [(CAFE.replace("für ", "für\n"), "DE")],
        "macintosh.csv is read as lines ended by CR",
    ),
    Messy(
        "empty-ends.csv",
        f'prompt,country,,\r\n{CAFE},DE,,\r\n"{BOTH}",FR\r\n,,,\r\n,,,,,\r\n\r\n\r\n'.encode(),
        TWO,
    ),
    Messy("header.csv", f'"PROMPT "," Country",\r\r\n"{CAFE}",de,\r\r\n"{BOTH}",FR,\r\r\n'.encode(), TWO),
    Messy(
        "list.csv",
        f"prompt\n{CAFE}\n{BOTH}\n".encode(),
        [(CAFE, "US"), (BOTH, "US")],
        "list.csv is read as one column, whose texts may have commas in them (--delimiter can say otherwise)",
    ),
    Messy(
        "engine.jsonl",
        b"\xef\xbb\xbf" + JSONL.replace('"country"', '"engine":"chat gpt","country"').encode(),
        TWO,
    ),
    Messy(
        "russian.csv",
        "prompt;country\r\nКакая лучшая CRM?;DE\r\n".encode("cp1251"),
        [],
        "",
        f"line 2, file: byte 0xca at offset 16 is not UTF-8, and its encoding cannot be told; {CODES}",
    ),
    Messy(
        "polish.csv",
        "prompt;country\r\nJaki był najlepszy łącznik?;PL\r\n".encode("cp1250"),
        [],
        "",
        f"line 2, file: byte 0xb3 at offset 23 is not UTF-8, and its encoding cannot be told; {CODES}",
    ),
    Messy(
        "macroman.csv",
        f"prompt,country\r{CAFE},DE\r".encode("macroman"),
        [],
        "",
        f"line 1, file: byte 0x8e at offset 26 is not UTF-8, and its encoding cannot be told; {CODES}",
    ),
    Messy(
        "two-encodings.csv",
        f"prompt,country\nö,DE\n{CAFE},DE\n".encode() + b"caf\xe9,US\nth\xe9,US\n",
        [("ö", "DE"), (CAFE, "DE")],
        "",
        "lines 4, 5: not UTF-8 (byte 0xe9 at offset 67); save the file as UTF-8, or name its encoding, such "
        "as --encoding cp1252",
    ),
    Messy(
        "appended.csv",
        b"prompt,country\nth\xe9,US\n" + b"x,US\n" * 2_000 + "naïveté,US\n".encode(),
        [("thé", "US"), *[("x", "US")] * 2_000],
        "appended.csv is read as Windows text (cp1252) (--encoding can say otherwise)",
        "line 2,003: not Windows text (cp1252) (byte 0xc3 at offset 10,024); save the file as UTF-8, or "
        "name its encoding, such as --encoding utf-8",
    ),
    Messy(
        "same.csv",
        b"prompt,country\n" + b"x,UK\n" * 499 + b"x,UK\n",
        [],
        "",
        "lines 2, 3, 4, 5, 6 and 495 more, country: 'UK' is not a country code; use GB",
    ),
    Messy(
        "array.csv",
        f"[{JSONL}]".encode(),
        [],
        "",
        "line 1, file: a JSON array, not JSON Lines; write one JSON object a line, without brackets around "
        "them or commas between",
    ),
    Messy(
        "log-in.csv",
        b"\xef\xbb\xbf\r\n<!DOCTYPE HTML><html><title>Sign in</title>",
        [],
        "",
        "line 1, file: a web page; get the file itself: perhaps a log-in stands before it",
    ),
    Messy(
        "pandas.csv",
        f"prompt,country,\n{CAFE},DE,0\n".encode(),
        [],
        "",
        "line 2: a cell in a column without a name; name the column in the header, or take it out",
    ),
    Messy(
        "workbook.csv",
        b"PK\x03\x04\x14\x00",
        [],
        "",
        "line 1, file: a ZIP archive or an Excel workbook; save the sheet as CSV UTF-8",
    ),
]


@pytest.mark.parametrize("messy", FILES, ids=lambda messy: messy.name)
def test_each_messy_file_is_read_or_refused_as_the_table_says(messy: Messy, tmp_path: Path) -> None:
    path = tmp_path / messy.name
    path.write_bytes(messy.content)
    reader = read_prompts(path, CHATGPT)
    tasks, remarks = read(reader)
    assert tasks == messy.tasks
    assert (reader.remark or "") == messy.said
    assert remarks == ([messy.refused] if messy.refused else [])
    assert reader.sha256 == hashlib.sha256(messy.content).hexdigest()


def read(reader: PromptReader) -> tuple[list[tuple[str, str]], list[str]]:
    """(prompt, country) of each task, and what is wrong, each thing once."""
    tasks, remarks = [], Remarks()
    for one in reader:
        if isinstance(one, TaskSpec):
            tasks.append((str(one.payload["prompt"]), str(one.payload["country"])))
        else:
            remarks.add(*one)
    assert not remarks.others
    return tasks, [f"{remark.where}: {remark.problem}; {remark.remedy}" for remark in remarks.kept]


class Trickle(io.RawIOBase):
    """Standard input that gives a few bytes at a time, as pipes do."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = io.BytesIO(content)
        self._sizes = random.Random(7)

    def read(self, size: int = -1) -> bytes:
        return self._content.read(min(size, self._sizes.randint(1, 7)))


@pytest.mark.parametrize("messy", FILES, ids=lambda messy: messy.name)
def test_standard_input_is_read_alike_however_it_comes(messy: Messy) -> None:
    """Whatever only the name says has to be said by an option."""
    tabs = messy.name in ("tabs.tsv", "no-mark.tsv", "no-mark-be.tsv")
    reading = Reading(delimiter="tab" if tabs else None)
    reader = read_prompts(Trickle(messy.content), CHATGPT, reading)  # type: ignore[arg-type]
    tasks, remarks = read(reader)
    assert tasks == messy.tasks
    assert remarks == ([messy.refused] if messy.refused else [])
    assert reader.sha256 == hashlib.sha256(messy.content).hexdigest()


@pytest.mark.parametrize(
    ("language", "text", "encoding"),
    [
        ("Polish", "Jaki był najlepszy łącznik?", "cp1250"),
        ("Czech", "Který účetní software je nejlepší pro řemeslníky?", "cp1250"),
        ("Hungarian", "Melyik a legjobb könyvelő szoftver?", "cp1250"),
        ("Romanian", "Care sunt cele mai bune soluţii în România şi cât costă?", "cp1250"),
        ("Turkish", "Küçük işletmeler için en iyi yazılım hangisi?", "cp1254"),
        ("Lithuanian", "Kokia geriausia buhalterinė programa mažoms įmonėms?", "cp1257"),
        ("Russian", "Какая лучшая CRM для малого бизнеса?", "cp1251"),
        ("Russian", "Какая лучшая CRM для малого бизнеса?", "koi8-r"),
        ("Greek", "Ποιο είναι το καλύτερο CRM;", "cp1253"),
        ("Japanese", "中小企業に最適なCRMは何ですか", "shift_jis"),
        ("Japanese", "東京の天気は", "shift_jis"),
        ("Japanese", "東京の天気は", "euc_jp"),
        ("Korean", "가장 좋은 은행은 어디인가요", "cp949"),
        ("Chinese", "哪家銀行最好", "big5"),
        ("Chinese", "最好的客户管理软件是什么", "gb18030"),
        ("German", "Welche Buchhaltung für Köln?", "macroman"),
        ("German", "Welche Buchhaltung für Köln?", "cp850"),
    ],
)
def test_what_is_not_western_is_never_guessed_and_read_when_it_is_named(
    language: str, text: str, encoding: str
) -> None:
    content = f"prompt|country\n{text}|DE\n".encode(encoding)
    tasks, (refused,) = read(read_prompts(io.BytesIO(content), CHATGPT))
    assert not tasks
    assert "its encoding cannot be told" in refused
    tasks, refused_named = read(read_prompts(io.BytesIO(content), CHATGPT, Reading(encoding, "bar")))
    assert (tasks, refused_named) == ([(text, "DE")], [])


def test_json_that_is_named_as_a_table_is_told_from_one(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text(f"\n{JSONL}")
    tasks, refused = read(read_prompts(path, CHATGPT))
    remedy = "line 2, file: JSON, but its name ends in .csv; give it a name that ends in .jsonl"
    assert (tasks, refused) == ([], [remedy])


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ('{"prompt":"x","score":NaN}', "write null"),
        ('{"prompt":"x","score":[1,-Infinity]}', "write null"),
        ('{"prompt":"say NaN, please"},', "without commas between"),
        ("{'prompt': 'x'}", "double quotes"),
        ('{"prompt":"cut off \\ud83d"}', "half of a pair"),
        ('{"prompt":"x"', "on one line"),
    ],
)
def test_what_programs_write_instead_of_json_has_its_remedy(line: str, remedy: str) -> None:
    tasks, (refused,) = read(read_prompts(io.BytesIO(f'{line}\n{{"prompt":"next"}}\n'.encode()), CHATGPT))
    assert [prompt for prompt, _ in tasks] == ["next"]
    assert refused.startswith("line 1: ") and remedy in refused


@pytest.mark.parametrize(
    "text",
    [
        "Welche Größe hat Österreichs »beste« Bäckerei – und für wen?",
        "Où est l’œuvre « naïve » de Noël, à 5 € près ?",
        "¿Qué niño comió más piñas en el Ñuñoa, 20 m² o 5 cm³?",
        "Quais são as melhores soluções de gestão à mão?",
        "Hvad koster Škoda på Ærø i kr. pr. måned?",
        "Mikä on paras šakkiohjelma yöllä, hääyöaie?",
        "Hvaða þýðing er best, og hvað kostar hún?",
        "Perché la città è così? Più o meno 30°, ®™",
    ],
)
def test_western_languages_are_read_as_cp1252(text: str) -> None:
    reader = read_prompts(io.BytesIO(f"prompt;country\n{text};DE\n".encode("cp1252")), CHATGPT)
    assert read(reader) == ([(text, "DE")], [])
    assert "cp1252" in str(reader.remark)


def test_packed_files_that_break_off_or_are_damaged_end_with_a_reason() -> None:
    rows = b"".join(b"prompt number %d,US\n" % random.Random(n).getrandbits(60) for n in range(2_000))
    packed = gzip.compress(b"prompt,country\n" + rows)
    for content, reason in (
        (packed[:-200], "breaks off after"),
        (packed[:-8] + b"\0" * 8, "is damaged after"),
        (packed + b"rubbish", "is damaged after"),
        (gzip.compress(packed), "twice"),
    ):
        try:
            found = [one for one in read_prompts(io.BytesIO(content), CHATGPT) if isinstance(one, BadLine)]
            assert found
            assert reason in found[0].problem
        except DamagedError as error:
            assert reason in str(error.strerror)
            assert error.remedy


def test_a_small_file_that_unpacks_to_a_large_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.prompts.source.UNPACKED_BYTES_MAX", 16 << 10)
    monkeypatch.setattr("app.prompts.lines.PASSED_BYTES_MAX", 1 << 18)
    monkeypatch.setattr("app.prompts.lines.BLANK_LINES_MAX", 1_000)
    header = b"prompt,country\n"
    with pytest.raises(DamagedError, match="unpacks to more than"):
        list(read_prompts(io.BytesIO(gzip.compress(header + b"x,US\n" * 4_000)), CHATGPT))
    monkeypatch.setattr("app.prompts.source.UNPACKED_BYTES_MAX", 1 << 20)
    for bomb, problem in ((b"x" * (1 << 19), "a line longer than 0 MB"), (b",,\r\n" * 2_000, "blank lines")):
        _, found = read(read_prompts(io.BytesIO(gzip.compress(header + bomb)), CHATGPT))
        assert problem in found[-1]


@pytest.mark.parametrize(
    ("encoding", "delimiter", "problem"),
    [
        ("klingon", None, "encoding: 'klingon' is no encoding"),
        ("base64", None, "is no encoding"),
        ("utf-7", None, "is no encoding"),
        ("iso2022_jp", None, "is no encoding"),
        ("unicode_escape", None, "is no encoding"),
        (None, ";;", "delimiter: ';;' separates no columns"),
        (None, "x", "separates no columns"),
        (None, '"', "separates no columns"),
        (None, "\n", "separates no columns"),
    ],
)
def test_what_cannot_be_forced_is_refused_at_once(
    encoding: str | None, delimiter: str | None, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        read_prompts(io.BytesIO(b""), CHATGPT, Reading(encoding, delimiter))


def test_wide_characters_are_told_apart_at_their_own_bounds() -> None:
    """ਊ is 0A 0A in UTF-16, and Ċ 01 0A: halves of them are no ends of lines."""
    texts = ["Ċ" * 3_000 + "ਊ", "\u0a0a" * 40_000, "a\nb", "😀"]
    rows = "".join(f'"{text}",US\n' for text in texts)
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        content = ("\ufeffprompt,country\n" + rows).encode(encoding)
        tasks, refused = read(read_prompts(Trickle(content), CHATGPT))  # type: ignore[arg-type]
        assert [text for text, _ in tasks] == [texts[0], texts[2], texts[3]]
        assert len(refused) == 1
    cut = ("\ufeffprompt\nx\n".encode("utf-16-le"))[:-1]
    _, (refused_cut,) = read(read_prompts(io.BytesIO(cut), CHATGPT))
    assert "not UTF-16" in refused_cut


def test_the_same_remark_is_counted_and_others_are_kept_apart() -> None:
    remarks = Remarks()
    for line in range(2, 9):
        remarks.add(line, "prompt", f"{10_000 + line:,} characters", "write 10,000 at most")
    remarks.add(9, "country", "'UK1' is not a country code", "use GB")
    remarks.add(10, "country", "'UK2' is not a country code", "use GB")
    assert [(r.where, r.count) for r in remarks.kept] == [
        ("lines 2, 3, 4, 5, 6 and 2 more, prompt", 7),
        ("line 9, country", 1),
        ("line 10, country", 1),
    ]
    for line in range(300):
        remarks.add(line, "country", f"'{line}' is not a country code", "")
    assert (len(remarks.kept), remarks.others) == (100, 203)


def test_every_codec_that_is_taken_reads_any_bytes() -> None:
    """Some of Python's pack bytes, or know no way to pass over what they cannot read."""
    names = {*encodings.aliases.aliases.values(), "idna", "punycode", "undefined", "zip"}
    taken = {name for name in names if (codec := read_encoding(name)) and _reads_anything(codec)}
    assert {"cp1252", "shift_jis", "utf_16"} <= taken
    assert not {"idna", "zip", "zlib_codec", "undefined"} & taken


def _reads_anything(codec: str) -> bool:
    return len(bytes(range(256)).decode(codec, "replace")) > 0 and len('",'.encode(codec)) > 0

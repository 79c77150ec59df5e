"""Every setting with every kind of wrong value: the answer names it, what is wrong and the remedy."""

import asyncio
import codecs
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from app.cli import processes
from app.cli.doctor.database import check_database
from app.cli.main import run
from app.cli.runs.submit import submit
from app.config import ConfigError, Settings, known_variables, load_settings
from app.domain.credits import to_micro
from app.limits import BODY_BYTES_MAX
from app.settings_text import unknown_variables
from app.store.write import inbox

VARIABLES = sorted(known_variables())
FREE = {
    "CLORO_API_KEY",
    "CLORO_WEBHOOK_SECRET",
    "TALLYHOOK_ARCHIVE_URL",
    "TALLYHOOK_DATA_DIR",
    "TALLYHOOK_HEARTBEAT_FILE",
    "TALLYHOOK_NOTICE_SECRET",
}
"""Text of which nothing is known but that it is one line."""
SECRET = "hush5ecret"
WRONG = {
    "two lines": f"{SECRET}\nb",
    "wrong type": f"per haps:{SECRET}",
    "wrong scheme": f"gopher://u:{SECRET}@h/x",
    "not UTF-8": os.fsdecode(b"\xff" + SECRET.encode()),
    "quotes": f'"{SECRET}"',
    "endless": "inf",
    "huge": "9" * 5_000,
    "below nothing": "-1",
}

COMMANDS: dict[str, Callable[[], None]] = {
    "doctor": lambda: processes.doctor(as_json=True),
    "web": lambda: processes.web(as_json=True),
    "worker": lambda: processes.worker(as_json=True),
    "submit": lambda: submit("prompts.csv", as_json=True),
}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper() in VARIABLES or name.startswith(("TALLYHOOK_", "CLORO_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refusal_of(name: str, value: str) -> str | None:
    os.environ[name] = value
    try:
        load_settings(_env_file=None)  # there is none, and looking for it costs as much as all the rest
    except ConfigError as error:
        return str(error)
    finally:
        del os.environ[name]
    return None


def refused(step: int = 1) -> list[tuple[str, str]]:
    """Every setting with each kind of value that it refuses; with a step, some of them."""
    pairs = list(itertools.product(VARIABLES, WRONG))[::step]
    return [(name, kind) for name, kind in pairs if refusal_of(name, WRONG[kind]) is not None]


@pytest.mark.parametrize("value", ["", "  ", "\n", " \r\n\t"])
def test_f24_an_empty_variable_is_not_set(
    value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unset = load_settings()
    # Nor is one that a file sets and the environment empties.
    (tmp_path / ".env").write_text("".join(f"{name}={SECRET}\n" for name in VARIABLES))
    for name in VARIABLES:
        monkeypatch.setenv(name, value)
    assert load_settings() == unset


@pytest.mark.parametrize("kind", WRONG)
def test_f24_each_setting_says_what_is_wrong_and_what_to_do(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    for name in VARIABLES:
        told = refusal_of(name, WRONG[kind])
        if told is None:
            taken.append(name)
            continue
        assert told.startswith(f"{name} "), told
        assert ": " in told or "; did you mean" in told, told
        assert SECRET not in told, told
        assert "\n" not in told, told
    if kind in ("two lines", "not UTF-8", "quotes"):
        assert taken == []
    elif kind in ("wrong type", "wrong scheme"):
        assert set(taken) <= FREE | {"NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY"}, (
            "nobody is reached by a proxy here"
        )


@pytest.mark.parametrize("command", ["doctor", "web", "worker", "submit prompts.csv"])
def test_f24_no_command_ends_in_a_traceback(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run` lets through what it does not know, so that a traceback would be this test's failure."""
    # By the command line, some of all; the next test has all of them.
    for name, kind in refused(4 * len(WRONG) + 1):
        monkeypatch.setenv(name, WRONG[kind])
        code = run([*command.split(), "--json"])
        monkeypatch.delenv(name)
        printed = capsys.readouterr()
        document = json.loads(printed.out)
        if command == "doctor":
            fault = document["checks"][0]
            assert (code, fault["name"], fault["state"]) == (1, name, "fault")
            message, remedy = fault["detail"], fault["remedy"]
        else:
            assert (code, document["error"]["code"]) == (2, "configuration")
            message, remedy = document["error"]["message"], document["error"]["remedy"]
        assert message.startswith(f"{name} "), message
        assert remedy or "did you mean" in message, message
        assert SECRET not in printed.out + printed.err


def test_f24_no_setting_gets_past_a_command_in_any_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All settings by all kinds, each past another command; without the command line, which costs more than
    all the rest."""
    all_refused = refused()
    assert len(all_refused) > 5 * len(VARIABLES)
    for (name, kind), command in zip(all_refused, itertools.cycle(COMMANDS), strict=False):
        monkeypatch.setenv(name, WRONG[kind])
        with pytest.raises((ConfigError, typer.Exit)) as caught:
            COMMANDS[command]()
        monkeypatch.delenv(name)
        printed = capsys.readouterr().out
        message = printed if command == "doctor" else str(caught.value)
        assert name in message, (name, kind)
        assert SECRET not in message, (name, kind)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "is not JSON, Expecting value at line 1 column 2"),
        ('{"eu": {"api_key": "hush5ecret",}}', "is not JSON"),
        ('[{"api_key": "hush5ecret"}]', "is a list"),
        ('"hush5ecret"', "is no object"),
        ("[" * 100_000, "is nested too deep"),
        ('{"eu": "hush5ecret"}', "'eu' is not an object"),
        ('{"eu": {}}', "'eu.api_key' is missing"),
        ('{"eu": {"api_key": 5}}', "'eu.api_key' is not text"),
        ('{"eu": {"api_key": "a b"}}', "'eu.api_key' has a blank"),
        ('{"eu": {"api_key": " "}}', "'eu.api_key' is empty: add the key"),
        ('{"eu": {"api_key": "a", "rate_per_s": true}}', "'eu.rate_per_s' is true or false"),
        ('{"eu": {"apikey": "hush5ecret"}}', "'eu.apikey' is no field of an account; did you mean api_key?"),
        ('{"eu": {"api_key": "a", "rate_per_s": "hush5ecret"}}', "'eu.rate_per_s' is not a number"),
        ('{"eu": {"api_key": "a", "rate_per_s": NaN}}', "has a number that is none"),
        ('{"eu": {"api_key": "a", "rate_per_s": 0}}', "'eu.rate_per_s' is not above 0"),
        ('{"eu": {"api_key": "a", "budget_per_month": 1e300}}', "'eu.budget_per_month' is above 1,000,"),
        ('{"eu": {"api_key": "a", "base_url": "h"}}', "'eu.base_url' is not an http address"),
        ('{"eu": {"api_key": "a"}, "eu": {"api_key": "b"}}', "names 'eu' twice"),
        ('{"eu": {"api_key": "a", "api_key": "b"}}', "names 'api_key' twice"),
        ('{"Eu!": {"api_key": "a"}}', "is no name of an account"),
        ('{"default": {"api_key": "a"}}', "CLORO_API_KEY's"),
        ('{"eu": {"api_key": "a", "rate_per_hour": ' + "9" * 5_000 + "}}", "TALLYHOOK_ACCOUNTS"),
    ],
)
def test_f24_accounts_in_each_way_that_they_are_wrong(text: str, words: str) -> None:
    told = refusal_of("TALLYHOOK_ACCOUNTS", text)
    assert told is not None
    assert told.startswith("TALLYHOOK_ACCOUNTS ")
    assert words in told
    assert SECRET not in told


def test_f24_what_stands_around_a_value_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As files of secrets leave it: a line break at the end."""
    for name, value in {
        "CLORO_API_KEY": " sk_live_1\n",
        "CLORO_WEBHOOK_SECRET": "whsec_a ,\nwhsec_b\r\n",
        "PORT": "9000\n",
        "PUBLIC_URL": "https://hooks.example.com/\n",
        "REDIS_URL": "redis://h/1\n",
        "DATABASE_URL": " postgres://u:p@h/d\n",
        "TALLYHOOK_NOTICE_URL": "https://n.example.com/a?b=c\n",
        "TALLYHOOK_ACCOUNTS": '{\n"eu": {"api_key": "k\\n", "webhook_secret": " s\\n"}\n}\n',
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.api_key, settings.webhook_secrets) == ("sk_live_1", ("whsec_a", "whsec_b"))
    assert (settings.port, settings.webhook_url) == (9000, "https://hooks.example.com/webhooks/cloro")
    assert (settings.redis_url, settings.database_url) == ("redis://h/1", "postgres://u:p@h/d")
    assert settings.notice_url == "https://n.example.com/a?b=c"
    assert settings.all_accounts()["eu"].api_key == "k"
    assert settings.all_accounts()["eu"].webhook_secrets == ("s",)


@pytest.mark.parametrize("bom", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_f24_a_file_of_settings_as_editors_save_it(bom: bytes, end: bytes, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(
        bom + end.join([b"PORT=9001", b"# caf\xc3\xa9", b'PUBLIC_URL="https://a.b"', b""])
    )
    settings = load_settings()
    assert (settings.port, settings.public_url) == (9001, "https://a.b")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PORT=9001\nCLORO_API_KEY=hush5ecret\xe9\n", ".env is not UTF-8 in line 2: "),
        ("PORT=9001\n".encode("utf-16"), ".env is not UTF-8 in line 1: "),
        (b"PORT=9001\nhush5ecret hush5ecret\n", ".env cannot be understood in line 2: "),
        (b"PORT=9001\n\nCLORO_API_KEY=hush\x005ecret\n", ".env cannot be understood in line "),
    ],
)
def test_f24_a_file_of_settings_that_cannot_be_read(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_f24_a_folder_of_that_name_is_none(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert load_settings().port == 8080


def test_f24_no_body_is_taken_that_is_not_read_back() -> None:
    assert BODY_BYTES_MAX == inbox.BODY_BYTES_MAX
    with pytest.raises(ConfigError, match="TALLYHOOK_BODY_BYTES_MAX"):
        load_settings(body_bytes_max=inbox.BODY_BYTES_MAX + 1)
    with pytest.raises(ConfigError, match="TALLYHOOK_WAITING_BYTES_MAX is below TALLYHOOK_BODY_BYTES_MAX"):
        load_settings(body_bytes_max=2_000, waiting_bytes_max=1_999)


def test_f24_the_largest_budget_is_kept_exactly() -> None:
    settings = load_settings(budget_per_month="1000000000000")
    assert settings.budget_per_month is not None
    assert to_micro(settings.budget_per_month) < 2**63


def test_f24_settings_that_do_not_go_well_together_are_reported() -> None:
    assert load_settings().doubts() == []
    message = load_settings(claim_lease_s=5).doubts()
    assert [(name, "TALLYHOOK_REQUEST_TIMEOUT_S" in what) for name, what, _ in message] == [
        ("TALLYHOOK_CLAIM_LEASE_S", True)
    ]
    url = "postgresql://u:hush@h/d?sslmode=require&channel_binding=require"
    [(name, what, remedy)] = load_settings(DATABASE_URL=url).doubts()
    assert (name, "channel_binding" in what, "verify-full" in remedy) == ("DATABASE_URL", True, True)
    assert "hush" not in what + remedy


def test_f24_a_name_that_nobody_reads_is_reported_with_the_one_that_was_meant() -> None:
    names = [
        "TALLYHOOK_RATE_PER_SEC",
        "CLORO_APIKEY",
        "tallyhook_port",
        "TALLYHOOK_HOST",
        "PATH",
        "CLORO_API_KEY",
        "TALLYHOOK_TEST_POSTGRES",
        "TALLYHOOK_XYZZY",
    ]
    assert unknown_variables(names, VARIABLES) == [
        ("CLORO_APIKEY", "CLORO_API_KEY"),
        ("TALLYHOOK_RATE_PER_SEC", "TALLYHOOK_RATE_PER_S"),
        ("TALLYHOOK_XYZZY", None),
        ("tallyhook_port", "PORT"),
    ]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("file", "names a file, or lies in one: "),
        ("file/data", "names a file, or lies in one: "),
        ("/dev/null", "names a file"),
        ("link", "cannot be used (No such file or directory): "),
        ("x" * 300, "cannot be used (File name too long): "),
        ("~nobody-here/x", "nobody's home: "),
    ],
)
def test_f24_a_data_directory_that_is_none(path: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    told = refusal_of("TALLYHOOK_DATA_DIR", path)
    assert told is not None
    assert told.startswith("TALLYHOOK_DATA_DIR ")
    assert words in told
    # Nor is one looked at that nobody uses.
    load_settings(data_dir="file", DATABASE_URL="sqlite:///x.db", REDIS_URL="redis://h")


def test_f24_a_data_directory_that_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: path != tmp_path)  # the superuser may all
    told = refusal_of("TALLYHOOK_DATA_DIR", str(tmp_path / "a" / "b"))
    assert told is not None
    assert "may not be written to by this user: give it the directory" in told
    # The one that stands by itself is no reason not to run what needs none; the doctor tells.
    settings = load_settings()
    check = asyncio.run(check_database(settings))
    assert (check.state, "may not be written to" in check.detail) == ("fault", True)


def test_f24_a_home_is_found_also_where_no_shell_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings(data_dir="~/tally").data_dir == tmp_path / "tally"


@pytest.mark.parametrize("path", ["/webhooks/cloro", "/webhooks/cloro/", "/hooks/webhooks/cloro/eu"])
def test_f24_the_path_that_we_add_is_not_added_twice(path: str) -> None:
    told = refusal_of("PUBLIC_URL", f"https://hooks.example{path}")
    assert told == "PUBLIC_URL has /webhooks/cloro in it, which we add ourselves: leave it out"
    assert load_settings(PUBLIC_URL="https://h/webhooks/").webhook_url == "https://h/webhooks/webhooks/cloro"


def test_f25_names_of_the_api_stand_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYHOOK_API_NAMES", " Tally.example.com, api ")
    assert load_settings(_env_file=None).api_names == ("tally.example.com", "api")
    monkeypatch.setenv("TALLYHOOK_API_NAMES", "https://tally.example.com")
    with pytest.raises(ConfigError, match=r"TALLYHOOK_API_NAMES.*without http"):
        load_settings(_env_file=None)


@pytest.mark.parametrize("host", ["localhost:8080", "http://h", "*", "a b", "x" * 300, "[]", "::1]", "1:2"])
def test_f25_what_is_no_host_is_refused(host: str) -> None:
    told = refusal_of("TALLYHOOK_HOST", host)
    assert told is not None
    assert "such as 0.0.0.0" in told


@pytest.mark.parametrize(
    ("host", "kept"), [("[::]", "::"), ("fe80::1%eth0", "fe80::1%eth0"), ("bücher.example", "bücher.example")]
)
def test_f25_hosts_of_every_kind_are_taken(host: str, kept: str) -> None:
    assert load_settings(host=host).host == kept


def test_f24_every_number_has_its_limits() -> None:
    """Or one of them overflows where it is counted in milliseconds."""
    for name, field in Settings.model_fields.items():
        if (
            field.annotation in (int, float)
            or "Decimal" in str(field.annotation)
            or "int |" in str(field.annotation)
        ):
            limits = {
                kind for one in field.metadata for kind in ("gt", "ge", "lt", "le") if hasattr(one, kind)
            }
            assert limits & {"gt", "ge"}, name
            assert limits & {"lt", "le"}, name

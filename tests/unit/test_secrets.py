"""No secret in a repr, in a child's environment, or in a file that others may read."""

import os
import stat
from pathlib import Path

import pytest

from app.address import read_database_address, read_redis_address
from app.bootstrap import open_provider
from app.cli.evidence.verify import plan_of
from app.cli.store_access import keep_private
from app.config import load_settings
from app.files.atomic_file import atomic_file
from app.local.processes import Processes, plain_environment

SECRET = "hush5ecret"
URLS = {
    "DATABASE_URL": f"postgresql://tally:{SECRET}@db.example.com/tally",
    "DATABASE_DIRECT_URL": f"postgresql://tally:{SECRET}@db.example.com/tally",
    "DATABASE_READ_URL": f"postgresql://tally:{SECRET}@replica.example.com/tally",
    "REDIS_URL": f"redis://:{SECRET}@redis.example.com/0",
}
SETTINGS = {
    **URLS,
    "CLORO_API_KEY": f"sk_live_{SECRET}",
    "CLORO_WEBHOOK_SECRET": f"whsec_{SECRET}",
    "TALLYHOOK_NOTICE_URL": f"https://hooks.example.com/{SECRET}",
    "TALLYHOOK_NOTICE_SECRET": f"whsec_aHVzaDVlY3JldGh1c2g1ZWNyZXQ{SECRET}=",
    "TALLYHOOK_ACCOUNTS": f'{{"eu": {{"api_key": "sk_{SECRET}", "webhook_secret": "whsec_{SECRET}"}}}}',
}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def everything_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("everything_set")
def test_f27_no_repr_shows_a_secret() -> None:
    settings = load_settings(_env_file=None)
    shown = [
        settings,
        settings.accounts,
        settings.all_accounts(),
        plan_of(settings, "", []),
        open_provider(settings),
        open_provider(settings, "eu"),
        read_database_address(URLS["DATABASE_URL"]),
        read_redis_address(URLS["REDIS_URL"]),
    ]
    for each in shown:
        for text in (repr(each), str(each)):
            assert SECRET not in text
    assert settings.all_accounts()["eu"].api_key == f"sk_{SECRET}"


@pytest.mark.usefixtures("everything_set")
def test_f27_a_child_is_given_what_it_needs_and_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert SECRET not in str(plain_environment())
    assert plain_environment()["PATH"] == os.environ["PATH"]
    with Processes(tmp_path / "logs") as processes:
        env = processes.spawn("env", ["env"], env=plain_environment())
        env.wait()
        assert "PATH=" in env.log.read_text()
        assert SECRET not in env.log.read_text()
        assert mode(env.log) == 0o600
    assert mode(tmp_path / "logs") == 0o700


def test_f27_what_is_written_is_for_its_user_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        keep_private(tmp_path / "data")
        with atomic_file(tmp_path / "answers.jsonl") as output:
            output.write(b"{}\n")
            (part,) = tmp_path.glob("*.part")
            assert mode(part) == 0o600
    finally:
        os.umask(umask)
    assert mode(tmp_path / "data") == 0o700
    assert mode(tmp_path / "data" / "tallyhook.db") == 0o600
    assert mode(tmp_path / "answers.jsonl") == 0o600


def test_f27_what_an_earlier_version_left_open_is_closed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    (data / "tallyhook.db").write_bytes(b"")
    (data / "tallyhook.db").chmod(0o644)
    keep_private(data)
    assert (mode(data), mode(data / "tallyhook.db")) == (0o700, 0o600)


def test_f27_a_directory_that_holds_more_than_ours_keeps_its_rights(tmp_path: Path) -> None:
    """As /tmp, /proc or a home does."""
    for name, others in (("new", ()), ("used", ("tallyhook.db", "letters.txt"))):
        data = tmp_path / name
        data.mkdir()
        data.chmod(0o755)
        for other in others:
            (data / other).write_bytes(b"")
        keep_private(data)
        assert (mode(data), mode(data / "tallyhook.db")) == (0o755, 0o600), name


def test_f27_no_file_is_written_through_a_link_that_was_laid_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when the name of the part could be foreseen."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr("app.files.atomic_file.secrets.token_hex", lambda _: "0")
    (tmp_path / "out.csv.0.part").symlink_to(victim)
    with pytest.raises(Exception, match="cannot write"), atomic_file(tmp_path / "out.csv") as output:
        output.write(b"theirs")
    assert victim.read_text() == "mine"

"""Wrong settings as real processes meet them: bytes in the environment, a file beside them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.stack import TALLYHOOK

SECRET = "hush5ecret"
WRONG: dict[str, bytes] = {
    "DATABASE_URL": f"mysql://u:{SECRET}@h/d".encode(),
    "REDIS_URL": f"redis://:{SECRET}#1@h:port".encode(),
    "TALLYHOOK_ACCOUNTS": f'{{"eu": {{"apikey": "{SECRET}"}}}}'.encode(),
    "CLORO_API_KEY": b"sk_live_\xff" + SECRET.encode(),
    "PORT": b"8080 8081",
    "TALLYHOOK_CA_FILE": b"/no/such.pem",
    "TALLYHOOK_LOG_LEVEL": b"loud",
    "TALLYHOOK_DATA_DIR": b"prompts.csv/data",
}
COMMANDS = {
    "doctor": [TALLYHOOK, "doctor"],
    "web": [TALLYHOOK, "web"],
    "worker": [TALLYHOOK, "worker"],
    "workers": [sys.executable, "-m", "workers"],
    "submit": [TALLYHOOK, "submit", "prompts.csv"],
    "emulator": [TALLYHOOK, "emulator", "--port", "0"],
}


def ended(command: list[str], folder: Path, **setting: bytes) -> tuple[int, str]:
    """(exit code, all that it printed)."""
    kept = {k: v for k, v in os.environb.items() if not k.startswith((b"TALLYHOOK_", b"CLORO_"))}
    env = kept | {os.fsencode(name): value for name, value in setting.items()}
    env |= {b"COLUMNS": b"200", b"PYTHONPATH": os.fsencode(Path(__file__).parents[2])}
    done = subprocess.run(
        command, env=env, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=200, check=False
    )
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


@pytest.mark.parametrize("command", COMMANDS)
def test_f24_processes_answer_in_words(command: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text("prompt\nhello\n")

    # Each command and each setting; all of them by all stand in the unit tests.
    for name in list(WRONG)[list(COMMANDS).index(command) :: len(COMMANDS)]:
        code, printed = ended(COMMANDS[command], tmp_path, **{name: WRONG[name]})
        assert code == (1 if command == "doctor" else 2), printed
        assert name in printed
        assert "Traceback" not in printed, printed
        assert SECRET not in printed
    assert not (tmp_path / ".tallyhook").exists(), "nothing was begun"


def test_f24_a_file_of_settings_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("PORT=8081\nPUBLIC_URL=https://café.example".encode("latin-1"))
    code, printed = ended(COMMANDS["worker"], tmp_path)
    assert code == 2, printed
    assert ".env is not UTF-8 in line 2" in printed
    assert "Traceback" not in printed

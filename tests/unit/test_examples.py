"""The examples as a newcomer starts them: without what they need."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def native_run(path: Path, **env: str) -> str:
    command = [sys.executable, EXAMPLES / "native_run.py", path]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 1
    return done.stderr


def test_what_an_example_needs_is_said_and_not_thrown(tmp_path: Path) -> None:
    prompts, away = EXAMPLES / "prompts.csv", "http://127.0.0.1:1"
    for said in (
        native_run(prompts),
        native_run(tmp_path / "none.csv", TALLYHOOK_TOKEN="thk_x"),
        native_run(prompts, TALLYHOOK_TOKEN="thk_x", TALLYHOOK_URL=away),
    ):
        assert "Traceback" not in said
        assert "usage:" in said or f"no answer from {away}" in said

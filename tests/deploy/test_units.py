"""The systemd units: verified, and how exposed systemd thinks each one is."""

import re
import shutil
from pathlib import Path

import pytest

from tests.deploy.tools import DEPLOY, debian_tool, must, run

pytestmark = pytest.mark.deploy
EXPOSURE_MAX = 3.0
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a worker's instance, and a command that exists in place of ours."""
    for path in (DEPLOY / "systemd").iterdir():
        text = path.read_text().replace("/opt/tallyhook/bin/tallyhook", shutil.which("true") or "/bin/true")
        (tmp_path / path.name).write_text(text)
    shutil.copy(tmp_path / "tallyhook-worker@.service", tmp_path / "tallyhook-worker@1.service")
    return tmp_path


def test_systemd_understands_every_word(units: Path) -> None:
    verify = [debian_tool("systemd-analyze", "systemd"), "verify", "--man=no", "--recursive-errors=no"]
    said = must(*verify, *sorted(units.iterdir()))
    assert said.strip() == ""
    broken = units / "tallyhook-web.service"
    broken.write_text(broken.read_text().replace("ProtectHome=yes", "ProtectHomes=yes"))
    assert "ProtectHomes" in run(*verify, broken).stdout


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_each_unit_is_confined(path: Path) -> None:
    said = must(debian_tool("systemd-analyze", "systemd"), "security", "--offline=yes", path)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert exposure is not None, said
    assert float(exposure[1]) <= EXPOSURE_MAX, said


def test_each_unit_runs_a_command_of_ours_and_has_time_to_end() -> None:
    assert len(UNITS) == 4
    for path in UNITS:
        text = path.read_text()
        (command,) = re.findall(r"^ExecStart=/opt/tallyhook/bin/tallyhook (\w+)$", text, re.MULTILINE)
        assert path.stem.rstrip("@") == f"tallyhook-{command}"
        (seconds,) = re.findall(r"^Timeout(?:Stop|Start)Sec=(\w+)$", text, re.MULTILINE)
        assert seconds in ("60", "1h")
        assert "DynamicUser=yes" in text

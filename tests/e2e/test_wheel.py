"""The built wheel as a guest in somebody else's environment, whose project has an `app` and `workers` too."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_demo import running_below, wait_until

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0
"""Much less than the 600 s after which a result without a delivery is polled for."""
SHORT, LONG = 60, 2_000
STRANGERS = "print('the code of somebody else ran')\nraise SystemExit(99)\n"


def done(*command: str, cwd: Path, **env: str) -> str:
    """What a command prints; it must end with 0."""
    ours = ("TALLYHOOK_", "CLORO_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    ended = subprocess.run(
        command, cwd=cwd, env=kept | env, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; the dependencies that are installed here serve it as well."""
    folder = tmp_path_factory.mktemp("venv")
    done(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=folder)
    python = str(folder / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install"]
    done(*pip, "--no-deps", "--no-index", "--no-compile", str(wheel), cwd=folder)
    inside = done(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    # Its .pth files are not read from here, so the checkout is on no path.
    (Path(inside) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody else's project, with packages that are called as ours are."""
    for name in ("app", "workers", "examples"):
        (tmp_path / name).mkdir()
        for file in ("__init__.py", "__main__.py", "config.py"):
            (tmp_path / name / file).write_text(STRANGERS)
    return tmp_path


def assert_adds_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"tallyhook"}
    assert {name.split("/")[2] for name in names if "/_packages/" in name} == {"app", "workers", "examples"}
    assert not [name for name in names if "__pycache__" in name]
    of_page = {name.rpartition("/")[2] for name in names if "/app/page/static/" in name}
    assert of_page >= {"theme.css", "style.css", "page.js", "vendor.json", "LICENSE.htmx"}


def assert_others_find_none_of_ours(environment: Path) -> None:
    find = "import importlib.util as u; print([u.find_spec(n) for n in ('app', 'workers', 'examples')])"
    python = str(environment / "bin" / "python")
    assert done(python, "-c", find, cwd=environment).strip() == "[None, None, None]"


class Up:
    """`tallyhook up` of the installed wheel, in somebody else's project, with nothing set."""

    def __init__(self, environment: Path, project: Path) -> None:
        self.tallyhook = str(environment / "bin" / "tallyhook")
        self.project = project
        self.log = project / "up.log"
        ours = ("TALLYHOOK_", "CLORO_", "PYTHON", "DATABASE_", "REDIS_URL", "PUBLIC_URL", "PORT")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.env["PYTHONPATH"] = str(project)

    def start(self) -> "subprocess.Popen[str]":
        with self.log.open("a") as log:
            return subprocess.Popen(
                # Ports that no other test has; by default it takes the next free ones.
                [self.tallyhook, "up", "--json", "--emulator", "--port 0 --time-scale 200"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.project,
                env=self.env | {"PORT": "0", "TALLYHOOK_API_PORT": "0"},
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def command(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit code and document of another command, in the same directory and with nothing set."""
        ended = subprocess.run(
            [self.tallyhook, *arguments, "--json"],
            cwd=self.project,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
        )
        assert ended.stdout, (ended.stderr, self.log.read_text())
        return ended.returncode, json.loads(ended.stdout.splitlines()[-1])

    def until(self, text: str, process: "subprocess.Popen[str]", times: int = 1) -> None:
        until_s = time.monotonic() + WAIT_S
        while self.log.read_text().count(text) < times:
            assert process.poll() is None and time.monotonic() < until_s, self.log.read_text()
            time.sleep(0.05)

    def pid_of(self, *words: str) -> int:
        """The command itself, not its supervisor."""
        for process in Path("/proc").iterdir():
            try:
                line = (process / "cmdline").read_text().split("\0")
                is_supervisor = any(part.endswith("supervisor.py") for part in line)
                is_here = Path(os.readlink(process / "cwd")) == self.project
                if is_here and not is_supervisor and set(words) < set(line):
                    return int(process.name)
            except OSError:  # it has ended meanwhile, or is not ours to look at
                continue
        raise AssertionError(f"no {words}")


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")
@pytest.mark.parametrize("count", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)])
def test_f36_up_from_an_installed_wheel_runs_prompts_to_their_end(
    wheel: Path, environment: Path, project: Path, count: int
) -> None:
    """In a directory with an `app` and `workers` of its own: what dies is started again where it was, other
    commands find everything without a setting, and it ends in order."""
    assert_adds_one_name(wheel)
    assert_others_find_none_of_ours(environment)
    up = Up(environment, project)
    rows = [f"question {n},GEMINI,US" for n in range(count)]
    (project / "prompts.csv").write_text("\n".join(["prompt,task_type,country", *rows, ""]))
    with up.start() as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, up.log.read_text()
            ready = json.loads(line)
            code, told = up.command("up")
            assert (code, told["error"]["code"]) == (1, "already_running"), told
            assert ready["web"] in told["error"]["message"] and ready["emulator"] in told["error"]["message"]
            os.kill(up.pid_of("app.cli.main", "web"), signal.SIGKILL)
            up.until("it is started again in 1 s", process)
            up.until(" listening host", process, times=2)
            status = up.command("submit", "prompts.csv", "--watch")[1]["status"]
            assert status["finished"], status
            assert status["states"]["completed"] + status["states"]["failed"] == count, status
            code, found = up.command("doctor")
            assert (code, found["healthy"]) == (0, True), found
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0, up.log.read_text()
    ends = [up.log.read_text().index(f"{name} has ended") for name in ("worker", "web", "emulator")]
    assert ends == sorted(ends)
    assert STRANGERS.split("'")[1] not in up.log.read_text()
    assert running_below(project) == []
    if count > SHORT:
        assert_told_twice_all_ends_at_once(up)


def assert_told_twice_all_ends_at_once(up: Up) -> None:
    with up.start() as process:
        up.until(" listening host", process, times=3)
        process.send_signal(signal.SIGTERM)
        up.until("once more ends all", process, times=2)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) in (130, 0), "0: it was quicker than we are"
    wait_until(lambda: not running_below(up.project), "the end of all processes")

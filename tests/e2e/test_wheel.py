"""The built wheel as a guest in somebody else's environment, whose project has an `app` and `workers` too."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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


def test_the_wheel_adds_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"tallyhook"}
    assert {name.split("/")[2] for name in names if "/_packages/" in name} == {"app", "workers", "examples"}
    assert not [name for name in names if "__pycache__" in name]


def test_others_find_none_of_ours_and_we_none_of_theirs(environment: Path, project: Path) -> None:
    python, tallyhook = str(environment / "bin" / "python"), str(environment / "bin" / "tallyhook")
    find = "import importlib.util as u; print([u.find_spec(n) for n in ('app', 'workers', 'examples')])"
    assert done(python, "-c", find, cwd=environment).strip() == "[None, None, None]"
    assert done(tallyhook, "runs", "--json", cwd=project, PYTHONPATH=str(project)) == '{"runs": []}\n'

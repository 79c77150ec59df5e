"""Nothing of one machine in the files. `make lint` holds the import directions (pyproject.toml)."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def project_files() -> list[Path]:
    """Tracked files of a checkout; otherwise, in an unpacked archive, every file that is not built."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    built = {".venv", ".tallyhook", "__pycache__", ".hypothesis", "dist", "build"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not any(p in built or p.endswith("_cache") for p in path.parts)
    ]


# Joined here, so that this file does not name them itself.
OUTSIDE = [
    "/" + "work/",
    "/" + "root/",
    "pypi." + "org",
    "pypi" + "-mirror",
    "files.python" + "hosted.org",
    "registry.npm" + "js.org",
    "index" + "-url",
    "proxy." + "golang.org",
]


def outside_names_in(text: str) -> list[str]:
    """Which places of one machine, and which package registries, a text names."""
    return [name for name in OUTSIDE if name in text]


def test_no_file_names_a_machine_or_a_registry() -> None:
    files = project_files()
    assert len(files) > 40, "the files were not found"
    found = {
        str(path.relative_to(ROOT)): names
        for path in files
        if (names := outside_names_in(path.read_bytes().decode("utf-8", "replace")))
    }
    assert not found


def test_a_name_from_outside_is_found() -> None:
    for name in OUTSIDE:
        assert outside_names_in(f"see {name}x for it") == [name]
    assert not outside_names_in("the /workers folder and ~/root")


def test_migrations_stand_in_one_line() -> None:
    """Two that were made side by side have one number, or one parent, and no database could be migrated."""
    folder = ROOT / "app" / "store" / "migrations" / "versions"
    before = None
    for path in sorted(folder.glob("[0-9]*.py")):
        said = dict(re.findall(r'^(revision|down_revision) = "?(\w+)"?$', path.read_text(), re.MULTILINE))
        number = path.name.partition("_")[0]
        assert (said["revision"], said["down_revision"]) == (number, before or "None"), path.name
        before = number

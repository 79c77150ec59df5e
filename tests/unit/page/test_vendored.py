"""What the page brings along: exactly what was fetched, small, and nothing that asks anybody else."""

import hashlib
import json
import re
from pathlib import Path

from app.page.assets import SERVED

PAGE = Path(__file__).parents[3] / "app" / "page"
STATIC = PAGE / "static"
VENDOR = STATIC / "vendor"
ADDRESS = re.compile(r"https?://[a-z0-9{]|[\"'(]//[a-z]", re.IGNORECASE)
SCRIPT_BYTES_MAX = 2_048


def test_files_of_others_are_what_the_lock_says() -> None:
    packages = json.loads((VENDOR / "vendor.json").read_text())["packages"]
    files = {name: file["sha256"] for package in packages for name, file in package["files"].items()}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    del found["vendor.json"]
    assert found == files
    for package in packages:
        assert re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", package["integrity"])
        assert package["licence"] and any(name.startswith("LICENSE") for name in package["files"])


def test_nothing_is_asked_of_anybody_else() -> None:
    written = [path for path in PAGE.rglob("*") if path.suffix in (".py", ".css", ".js")]
    found = {path.name: ADDRESS.findall(path.read_text()) for path in written}
    assert len(found) > 10
    assert {name: addresses for name, addresses in found.items() if addresses} == {}


def test_our_script_is_small_and_every_file_is_served() -> None:
    assert (STATIC / "page.js").stat().st_size <= SCRIPT_BYTES_MAX
    files = {p.relative_to(STATIC).as_posix() for p in STATIC.rglob("*") if p.suffix in (".css", ".js")}
    assert files == set(SERVED)


def test_the_emulators_page_wears_the_same_dress() -> None:
    """It imports nothing of ours, so it has a copy."""
    data = PAGE.parent / "emulator" / "data"
    assert (data / "theme.css").read_bytes() == (STATIC / "theme.css").read_bytes()
    assert (data / "status.html").read_text().count("/* theme.css */") == 1

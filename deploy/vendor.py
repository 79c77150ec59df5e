"""What the page has of others (app/page/static/vendor), fetched again and compared: `make vendor`. Needs npm.

For another release write its version, the integrity that npm has of it and the names of the files into
vendor.json; the hashes are written here.
"""

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "app" / "page" / "static" / "vendor"
LOCK = FOLDER / "vendor.json"


def main() -> None:
    lock = json.loads(LOCK.read_text())
    for package in lock["packages"]:
        fetch(package)
        sys.stdout.write(f"{package['name']} {package['version']}: {', '.join(package['files'])}\n")
    LOCK.write_text(json.dumps(lock, indent=2) + "\n")


def fetch(package: dict[str, Any]) -> None:
    """Write the files of a package, and their hashes into its entry; ends where it is another one."""
    with tempfile.TemporaryDirectory() as folder:
        what = f"{package['name']}@{package['version']}"
        subprocess.run(["npm", "pack", "--silent", what], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != package["integrity"]:
            sys.exit(f"{what} is not what vendor.json says: it has sha512-{digest}")
        with tarfile.open(archive) as opened:
            for name, file in package["files"].items():
                body = opened.extractfile(file["path"]).read()  # type: ignore[union-attr]
                file["sha256"] = hashlib.sha256(body).hexdigest()
                (FOLDER / name).write_bytes(body)


if __name__ == "__main__":
    main()

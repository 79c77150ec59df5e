"""What `pip install` adds to an environment: this package, the command `tallyhook`, and no other name.

Our code is called `app` and `workers`, as other people's often is. In a wheel it lies below this package and
is found in processes of the command only, whatever else is called so there; in a checkout it lies at the top.
"""

import sys
from pathlib import Path

_PACKAGES = Path(__file__).parent / "_packages"


def main() -> None:
    """The console script."""
    if _PACKAGES.is_dir():
        sys.path.insert(0, str(_PACKAGES))
    from app.cli.main import main as run

    run()

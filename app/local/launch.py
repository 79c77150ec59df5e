"""`python -P launch.py MODULE ARGUMENT…`: a module of ours, found by where this file lies.

`python -m` alone looks into the working directory first, where another project may have an `app`; and of an
installed wheel our packages are on no path at all but that of the command's own process.
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

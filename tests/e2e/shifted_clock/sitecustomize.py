"""Shifts the clock of a Python process: `time.time` and `time.time_ns`, by the seconds that stand in the file
named by SHIFTED_CLOCK_FILE, read at every call. Found by the interpreter through PYTHONPATH.
"""

import os
import time

_file = os.environ.get("SHIFTED_CLOCK_FILE", "")
_time, _time_ns = time.time, time.time_ns


def _offset_s() -> float:
    # A process asks for the time some thousand times a second.
    try:
        return float(os.pread(_opened, 64, 0) or 0)
    except (OSError, ValueError):
        return 0.0


if _file:
    _opened = os.open(_file, os.O_RDONLY)
    time.time = lambda: _time() + _offset_s()
    time.time_ns = lambda: _time_ns() + int(_offset_s() * 1_000_000_000)

"""Supervises one process and ends it when nobody needs it any more: `python supervisor.py LOCKFILE COMMAND…`.

Whoever needs the command holds a shared lock (flock) on LOCKFILE. The supervisor waits for the exclusive
lock: it gets it when the last holder has let go, and then stops the command. The kernel lets go for a process
that ends, however it ends, so a crash, a SIGKILL or an exec in the holder needs no handler anywhere. A parent
death signal alone would do the same only on Linux and only for one parent.

Standard library only, so that it starts in some 15 ms with `-I -S`. POSIX.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

GRACE_S = 25
"""Between SIGTERM and SIGKILL. A worker finishes its jobs within 20 s, Valkey closes its file."""
PR_SET_PDEATHSIG = 1
HANDLED = (signal.SIGTERM, signal.SIGALRM)


def main(arguments: list[str]) -> int:
    """Run the command to its end; its exit code, 128 + n when signal n ended it."""
    lock_path, *command = arguments
    # The terminal's Ctrl-C is for the holder; it lets go when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A signal that comes before its handler waits: it would end us, and leave the command to itself. Two at
    # once may both be taken by the thread, which runs no handler and wakes nobody who would: it inherits that
    # they wait.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    child = subprocess.Popen(  # noqa: S603 - the command is our own caller's
        command,
        process_group=0,
        close_fds=False,  # a lock that was given to us is the command's as well
        preexec_fn=_prepare_child(os.getpid(), before),  # noqa: PLW1509 - no thread was started yet
    )
    signal.signal(signal.SIGTERM, lambda *_: _stop(child))
    signal.signal(signal.SIGALRM, lambda *_: _signal_group(child, signal.SIGKILL))
    threading.Thread(target=_stop_when_unneeded, args=(lock_path,), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    code = child.wait()
    _signal_group(child, signal.SIGKILL)  # children that outlived it
    return code if code >= 0 else 128 - code


def _stop(child: "subprocess.Popen[bytes]") -> None:
    _signal_group(child, signal.SIGTERM)
    signal.alarm(GRACE_S)


def _signal_group(child: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    # macOS says EPERM for a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _stop_when_unneeded(lock_path: str) -> None:
    with Path(lock_path).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Held until this process ends: whoever wants the command again waits for that.
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait()


def _prepare_child(parent: int, blocked: set[Any]) -> Callable[[], None]:
    """What the child does between fork and exec. `blocked`: the signals that it is to begin with so."""
    prctl: Any = None
    if sys.platform.startswith("linux"):
        # Second line, for a supervisor that is itself killed. Loaded here: after a fork one may only call.
        import ctypes

        prctl = ctypes.CDLL(None).prctl

    def after_fork() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    return after_fork


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A Dockerfile's steps, run in a chroot: what they come to on a tree of the same distribution, without a
daemon. Knows what ours uses, and refuses the rest. Each stage is a tree of its own, laid over the base."""

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.tools import must

IGNORED = {"EXPOSE", "STOPSIGNAL"}
FROM_OUTSIDE = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")
"""Variables by which a machine says how registries are reached: a build's own affair."""
STEP_TIMEOUT_S = 900


@dataclass
class Stage:
    """What a stage has come to."""

    root: Path
    env: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    folder: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)


def instructions(text: str) -> list[tuple[str, str]]:
    """Name and rest of each, comments left out and continued lines joined."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (name, rest)
        for line in joined.splitlines()
        if line.strip()
        for name, _, rest in [line.partition(" ")]
    ]


class Build:
    """Runs the steps; `trees` is where stages are laid, on a file system that overlayfs may use."""

    def __init__(self, context: Path, base: Path, trees: Path) -> None:
        self._context, self._base, self._trees = context, base, trees
        self._stages: dict[str, Stage] = {}
        self._mounted: list[Path] = []
        self.steps = 0

    def run(self, dockerfile: Path) -> Stage:
        """The last stage."""
        stage: Stage | None = None
        for name, rest in instructions(dockerfile.read_text()):
            if name == "FROM":
                stage = self._begin(rest)
            elif name not in IGNORED:
                assert stage is not None, "a step before FROM"
                getattr(self, f"_{name.lower()}")(stage, rest)
            self.steps += 1
        assert stage is not None, "no FROM"
        return stage

    def close(self) -> None:
        for path in reversed(self._mounted):
            subprocess.run(["umount", "--lazy", str(path)], check=False)

    def _begin(self, rest: str) -> Stage:
        image, _, name = rest.partition(" AS ")
        assert "@sha256:" in image, "a base is pinned"
        folder = self._trees / (name or "last")
        parts = {part: folder / part for part in ("upper", "work", "root")}
        for path in parts.values():
            path.mkdir(parents=True)
        options = f"lowerdir={self._base},upperdir={parts['upper']},workdir={parts['work']}"
        must("mount", "-t", "overlay", "overlay", "-o", options, parts["root"])
        self._mounted.append(parts["root"])
        stage = Stage(parts["root"])
        self._stages[name] = stage
        return stage

    def _workdir(self, stage: Stage, rest: str) -> None:
        stage.folder = rest
        self._inside(stage, rest).mkdir(parents=True, exist_ok=True)

    def _inside(self, stage: Stage, path: str) -> Path:
        return stage.root / str(Path(stage.folder) / path).lstrip("/")

    def _copy(self, stage: Stage, rest: str) -> None:
        options = [part for part in rest.split() if part.startswith("--")]
        *sources, target = [part for part in rest.split() if not part.startswith("--")]
        (top,) = [self._stages[one.removeprefix("--from=")].root for one in options] or [self._context]
        for source in sources:
            found = top / source.lstrip("/")
            to = self._inside(stage, target)
            if found.is_dir():
                ignored = shutil.ignore_patterns("__pycache__") if top == self._context else None
                shutil.copytree(found, to, symlinks=True, dirs_exist_ok=True, ignore=ignored)
            else:
                to = to / found.name if target.endswith("/") or len(sources) > 1 or to.is_dir() else to
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, to)

    def _run(self, stage: Stage, rest: str) -> None:
        env = stage.env | {k: v for k, v in os.environ.items() if k.startswith(FROM_OUTSIDE)}
        shell = f"cd {shlex.quote(stage.folder)} && {rest}"
        must(*in_root(stage.root, "/bin/sh", "-c", shell), env=env, timeout=STEP_TIMEOUT_S)

    def _env(self, stage: Stage, rest: str) -> None:
        for part in shlex.split(rest):
            name, _, value = part.partition("=")
            stage.env[name] = value.replace("$PATH", stage.env["PATH"])

    def _user(self, stage: Stage, rest: str) -> None:
        stage.user = rest

    def _entrypoint(self, stage: Stage, rest: str) -> None:
        stage.entrypoint = json.loads(rest)

    def _cmd(self, stage: Stage, rest: str) -> None:
        stage.command = json.loads(rest)

    def _healthcheck(self, stage: Stage, rest: str) -> None:
        stage.healthcheck = json.loads(rest.partition("CMD ")[2])


def in_root(root: Path, *command: str) -> list[str]:
    """A command as root of a tree, with /proc and /dev of its own mount namespace."""
    script = 'mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    return ["unshare", "--mount", "--", "/bin/sh", "-c", script, str(root), *command]


def in_container(stage: Stage, *command: str) -> list[str]:
    """A command as a container of the stage would run it: its user, no capability, a read-only tree without a
    writable place, its entry point as process 1 of its own."""
    user, group = stage.user.split(":")
    confined = (
        f"setpriv --reuid={user} --regid={group} --clear-groups --bounding-set=-all --inh-caps=-all"
        " --no-new-privs"
    )
    script = (
        'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount --rbind /dev "$0/dev"'
        f' && mount -t proc proc "$0/proc" && exec chroot "$0" {confined}'
        ' /bin/sh -c \'cd "$0" && exec "$@"\' "$@"'
    )
    return [
        "unshare", "--mount", "--pid", "--fork", "--kill-child", "--", "/bin/sh", "-c", script,
        str(stage.root), stage.folder, *stage.entrypoint, *command,
    ]  # fmt: skip

"""The image's own steps in a chroot of its distribution, and what they make as a container would run it."""

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartValkey
from tests.deploy.base_tree import base_tree
from tests.deploy.dockerfile import Build, Stage, in_container, in_root
from tests.deploy.tools import DEPLOY, ROOT, debian_tool, must, needs_root, run
from tests.e2e.stack import Stack, running_stack
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1_800)]
COUNT = 60
EMULATOR = ("--time-scale", "200", "--concurrency", "80", "--fail", "0.03", "--duplicate", "0.02")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The last stage, built from the Dockerfile's steps."""
    needs_root()
    debian_tool("unshare", "util-linux")
    trees = tmp_path_factory.mktemp("trees")
    build = Build(ROOT, base_tree(), trees)
    try:
        yield build.run(DEPLOY / "Dockerfile")
    finally:
        build.close()


class Containers(Stack):
    """A stack whose `web`, `api` and workers run as containers of the image; the rest is this machine's."""

    image: Stage

    def _may_fork(self, name: str) -> bool:
        """What runs in a container is no fork of ours."""
        return False

    def command(self, name: str) -> list[str]:
        ours = {"web": ["tallyhook", "web"], "api": ["tallyhook", "api"], "worker": ["tallyhook", "worker"]}
        kind = name.rstrip("0123456789")
        if kind not in ours:
            return super().command(name)
        self.env_of[name] = self.image.env | {"TALLYHOOK_API_PORT": str(self._ports["api"]), "HOME": "/data"}
        return in_container(self.image, *ours[kind])

    def end(self, name: str, how: tuple[tuple[int, float], ...] = ()) -> int:
        """As `docker stop` does: to process 1 of the container."""
        process = self._processes[name]
        if name == "emulator" or process.poll() is not None:
            return super().end(name, *filter(None, [how]))
        (inner,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        del self._processes[name]
        os.kill(int(inner), signal.SIGTERM)
        return process.wait(30)


def test_the_image_holds_no_pip_and_a_list_of_its_parts(image: Stage) -> None:
    inside = image.root / "opt" / "tallyhook"
    assert not list((inside / "bin").glob("pip*"))
    parts = json.loads((inside / "sbom.cdx.json").read_text())
    names = {part["name"].lower() for part in parts["components"]}
    assert parts["bomFormat"] == "CycloneDX"
    assert {"aiohttp", "sqlalchemy", "tallyhook"} <= names
    assert not {"hatchling", "cyclonedx-bom", "pytest"} & names
    assert image.entrypoint == ["/usr/bin/tini", "--"]
    assert image.healthcheck[0] == "healthcheck"


def test_an_image_runs_without_root_on_a_read_only_system(image: Stage) -> None:
    def inside(*command: str) -> "subprocess.CompletedProcess[str]":
        return run(*in_container(image, *command), env=image.env)

    status = inside("cat", "/proc/self/status").stdout
    assert re.search(r"^Uid:\t10001\t", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert "tini" in inside("cat", "/proc/1/comm").stdout
    for place in ("/data/x", "/opt/tallyhook/x", "/tmp/x", "/etc/x"):
        assert "Read-only file system" in inside("touch", place).stdout, place
    assert inside("tallyhook", "--version").returncode == 0
    refused = inside("healthcheck", "http://127.0.0.1:1/healthz")
    assert refused.returncode == 1
    assert "not healthy" in refused.stdout


def test_a_file_that_was_exchanged_is_not_installed(image: Stage, tmp_path: Path) -> None:
    """The wheels' hashes are looked at: with another one, nothing is installed."""
    lines = (DEPLOY / "requirements.txt").read_text().partition("\naiosqlite")[0]
    (image.root / "tmp" / "r.txt").write_text(re.sub(r"sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", lines))
    build = image.root.parents[1] / "build" / "root"
    (build / "tmp" / "r.txt").write_bytes((image.root / "tmp" / "r.txt").read_bytes())
    env = image.env | {k: v for k, v in os.environ.items() if k.startswith("PIP_")}
    pip = [
        "/opt/build/bin/pip",
        "download",
        "--no-deps",
        "--require-hashes",
        "-d",
        "/tmp/d",
        "-r",
        "/tmp/r.txt",
    ]
    said = run(*in_root(build, *pip), env=env)
    assert said.returncode != 0
    assert "DO NOT MATCH THE HASHES" in said.stdout or "No matching distribution" in said.stdout, said.stdout


async def test_a_run_by_containers_of_the_image_is_booked_and_they_end_in_order(
    image: Stage, tmp_path: Path, postgres: PostgresServer, start_valkey: StartValkey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Migrated, received, sent, settled, by processes without a place to write; healthy while they run."""
    url = postgres.create_database()
    Containers.image = image
    monkeypatch.setattr("tests.e2e.stack.Stack", Containers)
    try:
        redis = start_valkey().url
        env = image.env | {"DATABASE_URL": url, "REDIS_URL": redis}
        await asyncio.to_thread(must, *in_container(image, "tallyhook", "migrate"), env=env)
        async with running_stack(tmp_path, url, redis, *EMULATOR) as stack:
            stack.start("api")
            for address in (stack.web_url, stack.api_url):
                check = in_container(image, image.healthcheck[0], f"{address}/healthz")
                await asyncio.to_thread(must, *check, env=image.env)
            await stack.submit(COUNT)
            await stack.until_finished()
            await stack.assert_books_equal(COUNT)
            ended = {name: await asyncio.to_thread(stack.end, name) for name in ("worker", "api", "web")}
            assert ended == {"worker": 0, "api": 0, "web": 0}, stack.logs()
    finally:
        postgres.drop_database(url)

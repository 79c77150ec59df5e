"""One `tallyhook up` with its emulator, runs that went wrong in many ways, browsers that are signed in."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.browser import find_browser
from tests.servers.processes import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

TALLYHOOK = Path(sys.executable).with_name("tallyhook")
START_S, RUN_S = 90, 180
WAIT_MS = 30_000
"""Of the browser for anything: two cores may be shared with others."""
EMULATOR = "--fail 0.08 --wrong-charge 0.05 --duplicate 0.02 --time-scale 30 --seed 7"
ENGINES = ("chatgpt", "gemini", "perplexity", "copilot")
ARABIC = "ما هي أفضل أداة لفريق التسويق؟"
LONG = "a-name-without-any-place-to-break-" * 3
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@dataclass
class Stack:
    """What runs, and what is in it."""

    url: str
    folder: Path
    tokens: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> Any:
        """A command in the stack's directory, with --json; its document."""
        done = subprocess.run(
            [str(TALLYHOOK), *arguments, "--json"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def submit(self, name: str, prompts: list[dict[str, Any]], *options: str) -> str:
        """A run; its id."""
        path = self.folder / "prompts.jsonl"
        path.write_text("\n".join(json.dumps(prompt) for prompt in prompts))
        self.runs[name] = self.command("submit", str(path), "--name", name, *options)["run"]["id"]
        return self.runs[name]

    def wait_until_finished(self, name: str) -> None:
        """Until nothing of a run is open."""
        until = time.monotonic() + RUN_S
        while not self.command("status", self.runs[name])["finished"]:
            assert time.monotonic() < until, f"{name} did not end"
            time.sleep(0.5)


def prompts(count: int, beginning: str = "What is the best tool for") -> list[dict[str, Any]]:
    """Lines of a file: engines and countries in turns."""
    return [
        {
            "prompt": f"{beginning} team {n}?",
            "engine": ENGINES[n % len(ENGINES)],
            "country": ("GB", "DE")[n % 2],
            "custom_id": f"row-{n}",
        }
        for n in range(count)
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    said, log = folder / "up.json", folder / "up.log"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TALLYHOOK_", "CLORO_"))}
    with said.open("w") as out, log.open("w") as err:
        up = subprocess.Popen(
            [str(TALLYHOOK), "up", "--json", "--emulator", EMULATOR],
            cwd=folder,
            env=clean,
            stdout=out,
            stderr=err,
        )
    try:
        wait_for(lambda: said.read_text().endswith("\n"), up, log, START_S)
        ready = json.loads(said.read_text())
        made = Stack(ready["api"], folder, {"up": ready["api_token"]})
        for scope in ("read", "submit", "operate"):
            made.tokens[scope] = made.command("token", "create", f"a {scope} token", "--scope", scope)[
                "token"
            ]
        hostile = [prompt | {"prompt": f"{HOSTILE} {n}"} for n, prompt in enumerate(prompts(4))]
        hostile[0] |= {"prompt": ARABIC, "custom_id": LONG}
        made.submit("Monday brand check", prompts(60) + hostile)
        made.wait_until_finished("Monday brand check")
        made.submit(HOSTILE[:120], prompts(3, "Which one is"))
        yield made
    finally:
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(30)
        except subprocess.TimeoutExpired:
            up.kill()


@pytest.fixture(scope="session")
def chromium() -> "Iterator[Browser]":
    path = find_browser()
    if path is None:
        pytest.skip(
            "no Chromium, so nobody looked at a page: apt-get install chromium, or name one in CHROMIUM"
        )
    sync_api = pytest.importorskip("playwright.sync_api", reason="make test-browser installs Playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


Visit = Callable[..., "Page"]


@pytest.fixture
def visit(stack: Stack, chromium: "Browser") -> Iterator[Visit]:
    """`visit("/account", scope="read", width=390, theme="dark", script=False)`: a page of somebody who is
    signed in; with `scope=None` of nobody. Errors of scripts, dialogs, what the policy stopped: all fail."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def open_page(
        path: str = "/",
        *,
        scope: str | None = "operate",
        width: int = 1280,
        theme: Any = "light",
        script: bool = True,
    ) -> "Page":
        context = chromium.new_context(
            base_url=stack.url,
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            java_script_enabled=script,
            accept_downloads=True,
        )
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
        page.on("dialog", lambda dialog: faults.append(f"{page.url}: a dialog: {dialog.message}"))
        page.on(
            "console",
            lambda said: (
                faults.append(f"{page.url}: {said.text}") if "Content Security" in said.text else None
            ),
        )
        if scope is not None:
            page.goto("/sign-in")
            page.get_by_label("Token").fill(stack.tokens[scope])
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("heading", level=1).first.wait_for()
        if path != "/" or scope is None:
            page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []

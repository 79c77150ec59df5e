"""What people do at the page, each way with JavaScript, and those that read or act also without it."""

import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import ARABIC, HOSTILE, LONG, Stack, Visit, prompts

if TYPE_CHECKING:
    from playwright.sync_api import Page

BOTH = pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
MONDAY = "Monday brand check"


def heading(page: "Page") -> str:
    return page.get_by_role("heading", level=1).first.inner_text()


def run_page(visit: Visit, stack: Stack, name: str = MONDAY, query: str = "", **who: object) -> "Page":
    return visit(f"/runs/{stack.runs[name]}{query}", **who)


@BOTH
def test_sign_in_with_a_wrong_token_and_then_with_a_good_one(
    visit: Visit, stack: Stack, script: bool
) -> None:
    page = visit("/account", scope=None, script=script)
    assert heading(page) == "Sign in"
    page.get_by_label("API token").fill("thk_wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("unknown, expired or revoked").wait_for()
    page.get_by_label("API token").fill(stack.tokens["read"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/account")
    assert stack.tokens["read"] not in page.content()


@BOTH
def test_sign_out_leaves_nothing_to_go_back_to(visit: Visit, script: bool) -> None:
    page = visit("/tokens", script=script)
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    page.go_back()
    page.wait_for_url(re.compile("/sign-in"))
    assert heading(page) == "Sign in"


@BOTH
def test_from_the_overview_to_a_run_to_a_task_and_its_answer(visit: Visit, script: bool) -> None:
    page = visit("/", scope="read", script=script)
    page.get_by_role("link", name=MONDAY, exact=True).click()
    page.get_by_role("heading", name="What the money bought").wait_for()
    page.get_by_role("table", name="Tasks, in the order of the source").get_by_role("link").first.click()
    page.get_by_role("heading", name="Charge").wait_for()
    assert page.get_by_role("heading", name="Answer").is_visible()
    course = page.locator("main").inner_text().lower()
    for step in ("stored", "sent", "accepted", "delivered", "settled"):
        assert step in course, step


@BOTH
def test_a_filter_is_in_the_address_and_back_goes_back(visit: Visit, stack: Stack, script: bool) -> None:
    page = run_page(visit, stack, script=script, scope="read")
    page.get_by_role("searchbox").fill("state:failed")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url(re.compile(r"q=state%3Afailed"))
    rows = page.get_by_role("table", name="Tasks, in the order of the source").locator("tbody tr")
    assert rows.count() >= 1
    assert all("failed" in row for row in rows.all_inner_texts())
    page.go_back()
    assert page.get_by_role("searchbox").input_value() == ""


def test_an_unknown_word_of_a_filter_is_an_error_that_names_the_known(visit: Visit, stack: Stack) -> None:
    page = run_page(visit, stack, query="?q=colour:red", scope="read")
    alert = page.get_by_role("alert").inner_text()
    assert "colour" in alert and "state" in alert and "custom_id" in alert


def test_a_task_is_found_by_its_own_id_and_by_words_of_its_prompt(visit: Visit, stack: Stack) -> None:
    page = run_page(visit, stack, query="?q=custom_id:row-17", scope="read")
    rows = page.get_by_role("table", name="Tasks, in the order of the source").locator("tbody tr")
    assert rows.count() == 1
    page.goto(f"/runs/{stack.runs[MONDAY]}?q=text:%22team+33%22")
    assert rows.count() == 1 and "33" in rows.inner_text()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_results_are_downloaded_whole(visit: Visit, stack: Stack, suffix: str) -> None:
    page = run_page(visit, stack, scope="read")
    with page.expect_download() as download:
        page.locator(f"a[href$='results.{suffix}']").click()
    data = Path(download.value.path()).read_bytes()
    if suffix == "jsonl":
        assert len(data.splitlines()) == data.count(b'"task_id"') > 50
    elif suffix == "csv":
        assert data.count(b"row-") > 50
    else:
        assert data[:4] == data[-4:] == b"PAR1"


@BOTH
def test_a_file_is_looked_at_priced_and_sent(visit: Visit, stack: Stack, script: bool) -> None:
    name = f"by the page, {'with' if script else 'without'} script"
    path = stack.folder / "page.jsonl"
    lines = [json.dumps(one) for one in prompts(6, f"{name}: which")]
    path.write_text("\n".join([*lines, '{"prompt": 5, "engine": "gemini"}']))
    page = visit("/submit", scope="submit", script=script)
    page.get_by_text("More options").click()
    page.get_by_label("Name of the run").fill(name)
    page.get_by_label("Drop a file here").set_input_files(path)
    page.get_by_role("button", name="Look at it").click()
    send = page.get_by_role("button", name=re.compile(r"^Send 6 tasks for up to"))
    send.wait_for()
    assert "Line 7" in page.get_by_role("table", name="What is wrong with lines of the file").inner_text()
    send.click()
    page.wait_for_url("**/runs/*")
    assert name in heading(page)


def test_a_file_that_cannot_be_read_says_why(visit: Visit, stack: Stack) -> None:
    path = stack.folder / "wrong.csv"
    path.write_text("question;motor\nwhich;gemini\n")
    page = visit("/submit", scope="submit")
    page.get_by_label("Drop a file here").set_input_files(path)
    page.get_by_role("button", name="Look at it").click()
    page.get_by_role("alert").first.wait_for()
    assert "prompt" in page.locator("main").inner_text()


@BOTH
def test_a_run_is_paused_resumed_and_cancelled(visit: Visit, stack: Stack, script: bool) -> None:
    name = f"to be stopped {script}"
    stack.submit(name, prompts(400, f"{name}: which"), "--budget", "40")
    page = run_page(visit, stack, name, script=script)
    page.get_by_role("link", name="Cancel…").wait_for()
    if page.get_by_role("button", name="Pause").count():
        page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").wait_for()
    page.get_by_role("link", name="Cancel…").click()
    page.get_by_role("button", name=re.compile("^Cancel ")).click()
    page.wait_for_url("**/runs/*")
    assert "cancelled" in page.locator("main").inner_text()


@BOTH
def test_one_task_is_retried(visit: Visit, stack: Stack, script: bool) -> None:
    page = run_page(visit, stack, query="?q=state:failed", script=script)
    page.get_by_role("table", name="Tasks, in the order of the source").get_by_role("link").first.click()
    page.get_by_role("link", name="Retry…").click()
    assert "May cost" in page.locator("main").inner_text()
    page.get_by_role("button", name="Retry this task").click()
    page.wait_for_url("**/tasks/*")
    assert page.get_by_role("link", name="Retry…").count() == 0 or "attempt 2" in page.content()


@BOTH
def test_all_that_match_are_retried_after_a_dry_run(visit: Visit, stack: Stack, script: bool) -> None:
    page = visit("/bulk", script=script)
    page.get_by_label("What to do").select_option("retry")
    page.get_by_label("To which tasks").fill(f"state:failed run:{stack.runs[MONDAY]}")
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("heading", level=1, name=re.compile(r"^Retry \d+ tasks?\?")).wait_for()
    yes = page.get_by_role("button", name=re.compile(r"^Retry .* for up to .* credits?"))
    if not yes.count():
        assert "Nothing that matches can be changed" in page.content()
        return  # the one before has them all under way
    yes.click()
    page.wait_for_url("**/bulk/*")
    for _ in range(60):
        if page.get_by_role("link", name="All bulk changes").count():
            break
        page.wait_for_timeout(500)
        page.reload()
    assert "finished" in page.locator("main").inner_text() or "done" in page.locator("main").inner_text()


def test_a_wrong_filter_of_a_bulk_change_changes_nothing(visit: Visit) -> None:
    page = visit("/bulk")
    page.get_by_label("To which tasks").fill("colour:red")
    page.get_by_role("button", name="Try it out").click()
    assert "colour" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("To which tasks").input_value() == "colour:red"


@BOTH
def test_findings_and_the_archive_for_the_provider(visit: Visit, script: bool) -> None:
    page = visit("/findings", scope="read", script=script)
    row = page.get_by_role("row", name=re.compile(MONDAY))
    with page.expect_download() as download:
        row.get_by_role("link", name=re.compile("dispute archive")).click()
    assert "README.txt" in zipfile.ZipFile(download.value.path()).namelist()
    page.get_by_role("link", name=MONDAY, exact=True).click()
    page.wait_for_url(re.compile(r"run="))
    assert page.get_by_role("table", name="Findings, newest first").locator("tbody tr").count() >= 1


@BOTH
def test_a_schedule_is_told_in_words(visit: Visit, stack: Stack, script: bool) -> None:
    name = f"every {LONG[:120]} {script}"
    path = stack.folder / "scheduled.jsonl"
    path.write_text(json.dumps(prompts(1)[0]))
    stack.command("schedule", "add", str(path), "--every", "2h30m", "--name", name)
    page = visit("/schedules", scope="read", script=script, width=390)
    assert "every 2 hours 30 minutes" in page.locator("main").inner_text()
    stack.command("schedule", "remove", name)


def test_engines_and_account_and_intake_and_relay_are_read(visit: Visit) -> None:
    page = visit("/engines", scope="read")
    for _ in range(60):
        if "CHATGPT" in page.locator("main").inner_text():
            break
        page.wait_for_timeout(500)
        page.reload()
    assert "answers" in page.locator("main").inner_text()
    for place, words in (("Account", "Ledger"), ("Intake", "Set aside"), ("Relay", "Settled results")):
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=place).click()
        page.get_by_text(words).first.wait_for()


@BOTH
def test_a_token_is_made_shown_once_and_revoked(visit: Visit, script: bool) -> None:
    name = f"a colleague {script}"
    page = visit("/tokens", script=script)
    page.get_by_label("Who will use it").fill(name)
    page.get_by_role("button", name="Make it").click()
    text = page.locator("pre").first.inner_text()
    assert text.startswith("thk_")
    page.get_by_role("link", name="All tokens").click()
    assert text not in page.content()
    page.get_by_role("row", name=re.compile(name)).get_by_role("link", name="Revoke…").click()
    page.get_by_role("button", name="Revoke it").click()
    page.wait_for_url("**/tokens")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Actions").click()
    assert "token.revoke" in page.locator("main").inner_text().replace(" ", ".")


def test_who_may_only_read_sees_no_button(visit: Visit, stack: Stack) -> None:
    page = run_page(visit, stack, scope="read")
    names = {button.inner_text() for button in page.get_by_role("button").all()}
    assert not names & {"Pause", "Resume", "Retry what failed…", "Cancel…"}
    assert page.get_by_role("link", name="Tokens").count() == 0
    page.goto(f"/runs/{stack.runs[MONDAY]}/cancel")
    assert "sign in with another token" in page.locator("main").inner_text()


def test_others_words_are_text_and_run_nothing(visit: Visit, stack: Stack) -> None:
    page = visit("/", scope="read")
    page.get_by_role("link", name=re.compile("script>document")).first.click()
    assert HOSTILE[:60] in heading(page)
    page.goto(f"/runs/{stack.runs[MONDAY]}?q=text:onerror")
    for link in page.get_by_role("table", name="Tasks, in the order of the source").get_by_role("link").all():
        assert "onerror" in link.inner_text() or link.is_visible()
    assert page.title() != "owned"


def test_a_prompt_from_right_to_left_and_a_long_name_break_no_page(visit: Visit, stack: Stack) -> None:
    page = run_page(visit, stack, query=f"?q=custom_id:{LONG}", scope="read", width=390)
    page.locator("main a[href^='/tasks/']").first.click()
    page.get_by_role("heading", name="Answer").wait_for()
    assert ARABIC in page.locator("main").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_run_moves_from_zero_to_its_end_by_itself(visit: Visit, stack: Stack) -> None:
    name = "seen from the beginning"
    stack.submit(name, prompts(40, "Seen moving: which"))
    page = run_page(visit, stack, name, scope="read")
    page.get_by_text("40 of 40 tasks done").wait_for(timeout=60_000)


def test_the_overview_tells_of_a_new_run_by_itself(visit: Visit, stack: Stack) -> None:
    page = visit("/", scope="read")
    stack.submit("a newcomer", prompts(2, "A newcomer: which"))
    page.get_by_role("link", name="a newcomer").wait_for()


def test_times_can_be_local_or_relative_and_stay_so(visit: Visit) -> None:
    page = visit("/", scope="read")
    choice = page.get_by_role("button", name=re.compile("^Times:"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", page.locator("main time").first.inner_text())
    choice.click()
    choice.click()
    assert choice.inner_text() == "Times: Ago"
    page.reload()
    assert "ago" in page.locator("main time").first.inner_text()


def test_everything_is_reached_by_the_keyboard(visit: Visit) -> None:
    page = visit("/", scope="read")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == MONDAY:
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/*")


def test_an_address_that_is_none_is_a_page_that_leads_back(visit: Visit) -> None:
    page = visit("/no/such/place", scope="read")
    page.get_by_role("link", name=re.compile("overview", re.I)).first.click()
    assert heading(page) == "Overview"


def test_a_page_says_that_it_stands_still_and_when_it_goes_on(visit: Visit, stack: Stack) -> None:
    page = visit("/", scope="read")
    stale, other = page.get_by_text("Updates have stopped"), page.context.new_page()
    other.goto("/")
    assert not stale.is_visible()
    other.get_by_role("button", name="Sign out").click()
    stale.wait_for()
    other.get_by_label("API token").fill(stack.tokens["read"])
    other.get_by_role("button", name="Sign in").click()
    stale.wait_for(state="hidden")


def test_each_table_is_downloaded_from_its_page(visit: Visit) -> None:
    page = visit("/findings", scope="read")
    with page.expect_download() as download:
        page.get_by_role("link", name="findings as CSV").click()
    assert Path(download.value.path()).read_bytes().startswith(b"id,at,verdict,")

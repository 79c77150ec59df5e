"""The command line: `tallyhook COMMAND`. Names the commands and says what went wrong; nothing else.

Exit codes: 0 it worked, 1 it did not, 2 wrong usage, 3 it is stored, but then something failed
(not to be repeated), 70 a bug, 130 interrupted. Everything heavy is imported by the
command that needs it, so that --help is quick.
"""

import sys

from app.stop_signals import LONG_RUNNING, exit_on_signals

if LONG_RUNNING.intersection(sys.argv[1:2]) or any(part.startswith("--follow") for part in sys.argv):
    # Before all else: what follows, and what these commands import, takes a second.
    exit_on_signals()

import gc
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException
from typer.main import get_group

from app.cli import processes, streams, tokens
from app.cli.accounts.adjust import ADJUST_EXAMPLES, adjust
from app.cli.accounts.audit import AUDIT_EXAMPLES, audit
from app.cli.accounts.forecast import FORECAST_EXAMPLES, forecast
from app.cli.accounts.plan import PLAN_EXAMPLES, STATEMENT_EXAMPLES, plan, statement
from app.cli.api import API_EXAMPLES, api
from app.cli.archive import ARCHIVE_EXAMPLES, archive
from app.cli.bulk import bulk
from app.cli.evidence.certificate import CERTIFICATE_EXAMPLES, certificate
from app.cli.evidence.dispute import DISPUTE_EXAMPLES, dispute
from app.cli.evidence.verify import VERIFY_EXAMPLES, verify
from app.cli.help import show_help
from app.cli.inbox import inbox
from app.cli.init.command import INIT_EXAMPLES, init
from app.cli.mcp import MCP_EXAMPLES, mcp
from app.cli.migrate import migrate
from app.cli.notices import notices
from app.cli.numbers import read_digits_only
from app.cli.relay import relay
from app.cli.retention import PRUNE_EXAMPLES, RETAIN_EXAMPLES, prune, retain
from app.cli.runs import commands, control
from app.cli.runs.ask import ASK_EXAMPLES, ask
from app.cli.runs.export_command import EXPORT_EXAMPLES, export
from app.cli.runs.submit import SUBMIT_EXAMPLES, submit
from app.cli.schedules import schedule
from app.cli.up.command import UP_EXAMPLES, up
from app.errors import BUG, FAILED, INTERRUPTED, STORED, USAGE, UserError, interrupted

HELP = (
    "Runs large batches of prompts through an async API and accounts for every one of them.\n\n"
    "Nothing needs to be configured to try it: [b]tallyhook up[/b] runs everything on this machine. For "
    "real runs [b]tallyhook init[/b] writes a .env for key, secret and PUBLIC_URL; [b]tallyhook doctor[/b] "
    "says what is missing."
)

app = typer.Typer(
    name="tallyhook",
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    """What holds for every command."""
    if version:
        show_version()
        raise typer.Exit


def show_version() -> None:
    """One line on standard output."""
    from importlib.metadata import version

    sys.stdout.write(f"tallyhook {version('tallyhook')}\n")
    sys.stdout.flush()


def _add(command: Callable[..., None], panel: str, epilog: str | None = None, **settings: Any) -> None:
    # Typer keeps the line breaks of a docstring's later paragraphs, which are the source's, not the reader's.
    paragraphs = (command.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    app.command(command.__name__, help=text, epilog=epilog, rich_help_panel=panel, **settings)(command)


_add(processes.demo, "Runs", processes.DEMO_EXAMPLES)
_add(submit, "Runs", SUBMIT_EXAMPLES)
_add(ask, "Runs", ASK_EXAMPLES)
_add(commands.watch, "Runs", commands.WATCH_EXAMPLES)
_add(commands.runs, "Runs")
_add(commands.status, "Runs")
_add(commands.report, "Runs", commands.REPORT_EXAMPLES)
_add(export, "Runs", EXPORT_EXAMPLES)
_add(certificate, "Runs", CERTIFICATE_EXAMPLES)
_add(dispute, "Runs", DISPUTE_EXAMPLES)
_add(verify, "Runs", VERIFY_EXAMPLES)
_add(adjust, "Runs", ADJUST_EXAMPLES)
_add(control.pause, "Runs")
_add(control.resume, "Runs")
_add(control.cancel, "Runs")
_add(control.retry, "Runs", control.RETRY_EXAMPLES)
_add(retain, "Runs", RETAIN_EXAMPLES)
app.add_typer(bulk, name="bulk", rich_help_panel="Runs")
app.add_typer(inbox, name="inbox", rich_help_panel="Runs")
app.add_typer(relay, name="relay", rich_help_panel="Runs")
app.add_typer(schedule, name="schedule", rich_help_panel="Runs")
_add(plan, "Accounts", PLAN_EXAMPLES)
_add(forecast, "Accounts", FORECAST_EXAMPLES)
_add(audit, "Accounts", AUDIT_EXAMPLES)
_add(statement, "Accounts", STATEMENT_EXAMPLES)
app.add_typer(notices, name="notices", rich_help_panel="Accounts")
app.add_typer(tokens.token, name="token", rich_help_panel="Access")
_add(tokens.actions, "Access")
_add(up, "Processes", UP_EXAMPLES)
_add(init, "Processes", INIT_EXAMPLES)
_add(processes.web, "Processes", processes.WEB_EXAMPLES)
_add(api, "Processes", API_EXAMPLES)
_add(mcp, "Processes", MCP_EXAMPLES)
_add(processes.worker, "Processes")
_add(processes.emulator, "Processes", context_settings=processes.EMULATOR_CONTEXT)
_add(archive, "Processes", ARCHIVE_EXAMPLES)
_add(migrate, "Processes")
_add(prune, "Processes", PRUNE_EXAMPLES)
_add(processes.doctor, "Processes", processes.DOCTOR_EXAMPLES)


def main() -> None:
    """The console script."""
    # Databases, logs, exports: what we make holds prompts and answers, and is nobody else's to read.
    os.umask(0o077)
    streams.take_streams()
    arguments = sys.argv[1:]
    streams.forget_done()
    try:
        code = run(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        code = _bug(error, as_json="--json" in arguments)
    gc.freeze()  # or Python goes through all of it once more as it ends
    # Once more, for what the lines above have written.
    sys.exit(code if streams.lost_output() is None or streams.all_done() else code or FAILED)


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Raises what is a bug of ours."""
    as_json = "--json" in arguments
    streams.forget_done()
    code = _run(arguments, as_json=as_json)
    lost = streams.lost_output()
    if lost is not None:
        # What was done is done, and a caller that sees another code than 0 does it again.
        code = code if streams.all_done() else code or FAILED
        _report(UserError("output_lost", str(lost)), as_json=False)
    if lost is not None or code in (STORED, INTERRUPTED):
        _report_done()
    return code


def _run(arguments: Sequence[str], *, as_json: bool) -> int:
    try:
        refuse_not_text(arguments)
        if list(arguments) == ["--version"]:
            show_version()  # without what typer loads to read an option
            return 0
        program = get_group(app)
        if show_help(program, arguments):
            return 0
        read_digits_only(program)
        code = _code_of(program(args=list(arguments), standalone_mode=False))
    except SystemExit as error:
        return _code_of(error.code)
    except streams.OutputError:
        return FAILED  # reported by `run`, which asks for it anyhow
    except Exception as error:
        if isinstance(error.__cause__, SystemExit):
            # A signal while a class was made: Python makes a RuntimeError of what __set_name__ raises.
            return _code_of(error.__cause__.code)
        problem = known_error(error)
        if problem is None:
            raise
        _report(problem, as_json=as_json, usage=error if isinstance(error, TyperException) else None)
        goes_on = streams.all_done() and not problem.is_interruption
        return STORED if goes_on else problem.exit_code
    if code == INTERRUPTED:
        _report(interrupted("this command has ended before its time", ""), as_json=as_json)
    return code


def refuse_not_text(arguments: Sequence[str]) -> None:
    """Raises UserError: names, ids and paths are kept and compared as text."""
    for place, argument in enumerate(arguments, 1):
        if any("\ud800" <= char <= "\udfff" for char in argument):
            raise UserError(
                "usage",
                f"argument {place}, {argument!r}, is not UTF-8",
                "give it in UTF-8; a file of such a name has to be renamed, or read by - from standard input",
                exit_code=USAGE,
            )


def known_error(error: Exception) -> UserError | None:
    """What a person can do something about; None for a bug of ours."""
    from app.ports import BlockDamaged, ObjectsRefused, ObjectsUnavailable

    if isinstance(error, UserError):
        return error
    if isinstance(error, TyperException):
        return UserError("usage", str(error.format_message()), exit_code=error.exit_code)
    settings = sys.modules.get("app.settings_text")  # who has not loaded it can have read none wrongly
    if settings is not None and isinstance(error, settings.ConfigError):
        alone = error.problems[0].parted() if len(error.problems) == 1 else (str(error), "")
        return UserError("configuration", *alone, exit_code=USAGE)
    if isinstance(error, ObjectsRefused):
        return UserError("archive_refused", error.message, error.remedy)
    if isinstance(error, ObjectsUnavailable | BlockDamaged):
        remedy = "what is stored and recorded stays; call it again when the storage of the archive is well"
        return UserError("archive_unavailable", str(error), remedy)
    embedded = sys.modules.get("app.local.embedded")
    if embedded is not None and isinstance(error, embedded.EmbeddedError):
        return UserError("embedded_valkey", str(error), error.remedy)
    if isinstance(error, OSError) and error.strerror:
        # Of the machine: no descriptor left, a file that may not be read. Databases have reported theirs
        # already.
        what = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
        return UserError("system", f"the system refused: {error.strerror}{what}")
    return None


def _bug(error: Exception, *, as_json: bool) -> int:
    """Say that we have failed, in a sentence: where, and not with what, which may be a prompt or a secret."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}app{os.sep}" in f.filename]
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    if os.environ.get("TALLYHOOK_LOG_LEVEL") == "debug":
        from app.log import leave_out_secrets

        lines = {"error": "".join(traceback.format_exception(error))}
        sys.stderr.write(str(leave_out_secrets(None, "", lines)["error"]))
    problem = UserError(
        "bug",
        f"this is a bug of Tallyhook: {type(error).__name__}{where}",
        "please report this sentence; TALLYHOOK_LOG_LEVEL=debug shows more, which may hold prompts",
        exit_code=STORED if streams.all_done() else BUG,
    )
    _report(problem, as_json=as_json)
    _report_done()
    return problem.exit_code


def _report(problem: UserError, *, as_json: bool, usage: TyperException | None = None) -> None:
    from app.cli.terminal import draw_error, draw_usage, error_console, write_json

    if as_json:
        try:
            write_json(problem.document())
        except streams.OutputError:
            draw_error(error_console(), problem)
    elif usage is not None:
        draw_usage(error_console(), usage)
    else:
        draw_error(error_console(), problem)


def _report_done() -> None:
    from app.cli.terminal import draw_done, error_console

    draw_done(error_console(), streams.all_done())


def _code_of(code: object) -> int:
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    main()

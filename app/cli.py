"""The command line: `tallyhook COMMAND`. Names the commands and says what went wrong; nothing else.

Exit codes: 0 it worked, 1 it did not, 2 it was asked for wrongly. Everything heavy is imported by the command
that needs it, so that --help is quick.
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.exceptions import TyperException

from app.commands import control, processes, runs
from app.commands.adjust import ADJUST_EXAMPLES, adjust
from app.commands.ask import ASK_EXAMPLES, ask
from app.commands.audit import AUDIT_EXAMPLES, audit
from app.commands.certificate import CERTIFICATE_EXAMPLES, certificate
from app.commands.dispute import DISPUTE_EXAMPLES, dispute
from app.commands.forecast import FORECAST_EXAMPLES, forecast
from app.commands.notices import notices
from app.commands.plan import PLAN_EXAMPLES, STATEMENT_EXAMPLES, plan, statement
from app.commands.schedule import schedule
from app.commands.submit import SUBMIT_EXAMPLES, submit
from app.commands.user_error import INTERRUPTED, USAGE, UserError
from app.commands.verify import VERIFY_EXAMPLES, verify

HELP = (
    "Runs large batches of prompts through an async API and accounts for every one of them.\n\n"
    "Nothing needs to be configured to try it: [b]tallyhook demo[/b] runs everything on this machine. For "
    "real runs set CLORO_API_KEY, CLORO_WEBHOOK_SECRET and PUBLIC_URL; [b]tallyhook doctor[/b] says what is "
    "missing."
)

app = typer.Typer(
    name="tallyhook", help=HELP, no_args_is_help=True, rich_markup_mode="rich", add_completion=False,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def _add(command: Callable[..., None], panel: str, epilog: str | None = None, **settings: Any) -> None:
    # Typer keeps the line breaks of a docstring's later paragraphs, which are the source's, not the reader's.
    paragraphs = (command.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    app.command(command.__name__, help=text, epilog=epilog, rich_help_panel=panel, **settings)(command)


_add(processes.demo, "Runs", processes.DEMO_EXAMPLES)
_add(submit, "Runs", SUBMIT_EXAMPLES)
_add(ask, "Runs", ASK_EXAMPLES)
_add(runs.watch, "Runs", runs.WATCH_EXAMPLES)
_add(runs.runs, "Runs")
_add(runs.status, "Runs")
_add(runs.report, "Runs", runs.REPORT_EXAMPLES)
_add(runs.export, "Runs", runs.EXPORT_EXAMPLES)
_add(certificate, "Runs", CERTIFICATE_EXAMPLES)
_add(dispute, "Runs", DISPUTE_EXAMPLES)
_add(verify, "Runs", VERIFY_EXAMPLES)
_add(adjust, "Runs", ADJUST_EXAMPLES)
_add(control.pause, "Runs")
_add(control.resume, "Runs")
_add(control.cancel, "Runs")
_add(control.retry, "Runs", control.RETRY_EXAMPLES)
app.add_typer(schedule, name="schedule", rich_help_panel="Runs")
_add(plan, "Accounts", PLAN_EXAMPLES)
_add(forecast, "Accounts", FORECAST_EXAMPLES)
_add(audit, "Accounts", AUDIT_EXAMPLES)
_add(statement, "Accounts", STATEMENT_EXAMPLES)
app.add_typer(notices, name="notices", rich_help_panel="Accounts")
_add(processes.web, "Processes", processes.WEB_EXAMPLES)
_add(processes.worker, "Processes")
_add(processes.emulator, "Processes", context_settings=processes.EMULATOR_CONTEXT)
_add(processes.migrate, "Processes")
_add(processes.doctor, "Processes", processes.DOCTOR_EXAMPLES)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code."""
    as_json = "--json" in arguments
    try:
        code = _code_of(app(args=list(arguments), standalone_mode=False))
    except SystemExit as error:
        return _code_of(error.code)
    except Exception as error:
        told = known_error(error)
        if told is None:
            raise
        _tell(told, error, as_json=as_json)
        return told.exit_code
    if code == INTERRUPTED:
        _tell(UserError("interrupted", "interrupted"), None, as_json=as_json)
    return code


def known_error(error: Exception) -> UserError | None:
    """What a person can do something about; None for a bug of ours."""
    from app.config import ConfigError

    if isinstance(error, UserError):
        return error
    if isinstance(error, TyperException):
        return UserError("usage", str(error.format_message()), exit_code=error.exit_code)
    if isinstance(error, ConfigError):
        alone = error.problems[0].parted() if len(error.problems) == 1 else (str(error), "")
        return UserError("configuration", *alone, exit_code=USAGE)
    if isinstance(error, BrokenPipeError):
        return UserError("broken_pipe", "nobody reads the output any more")
    embedded = sys.modules.get("app.embedded")
    if embedded is not None and isinstance(error, embedded.EmbeddedError):
        return UserError("embedded_valkey", str(error), "set REDIS_URL to a Redis or Valkey of yours")
    return None


def _tell(told: UserError, error: Exception | None, *, as_json: bool) -> None:
    if told.code == "broken_pipe":
        # What is left in the buffer has nowhere to go, and the interpreter would complain at its end.
        sys.stdout = None
    elif as_json:
        print(json.dumps(told.document(), ensure_ascii=False, default=str))  # noqa: T201
    elif isinstance(error, TyperException):
        from typer.rich_utils import rich_format_error

        rich_format_error(error)  # type: ignore[arg-type]
    else:
        from app.commands.render import draw_error, error_console

        draw_error(error_console(), told)


def _code_of(code: object) -> int:
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    main()

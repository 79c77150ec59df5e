"""A signal that ends a process while Python makes a class."""

import pytest

from app.cli import main


class Signalled:
    """An attribute at whose naming the handler of a signal ran."""

    def __set_name__(self, owner: type, name: str) -> None:
        raise SystemExit(0)


def test_f25_a_signal_while_a_class_is_made_is_an_end_and_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(*, args: object, standalone_mode: bool) -> None:
        type("Made", (), {"attribute": Signalled()})

    monkeypatch.setattr(main, "get_group", lambda _app: command)
    assert main.run(["runs"]) == 0

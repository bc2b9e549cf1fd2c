from pathlib import Path

from reprise.core.errors import UserError


def test_an_error_is_one_line_of_file_key_problem_and_what_was_expected() -> None:
    error = UserError("got 'ten'", file=Path("params.yaml"), key="train.epochs", expected="an integer")
    assert str(error) == "params.yaml: train.epochs: got 'ten'; expected an integer"
    assert (error.file, error.key, error.expected) == ("params.yaml", "train.epochs", "an integer")


def test_parts_that_an_error_does_not_have_leave_no_trace() -> None:
    assert str(UserError(key="--processes", expected="at least 1")) == "--processes: expected at least 1"
    assert str(UserError("no runs yet")) == "no runs yet"


def test_control_characters_of_a_file_are_spelled_out() -> None:
    assert str(UserError("got 'a\nb\x1b[31m'", key="task\r")) == r"task\r: got 'a\nb\x1b[31m'"


def test_a_line_is_readable_whatever_its_parts_hold_and_the_error_has_them_whole() -> None:
    error = UserError(
        f"unknown label {'x' * 9000!r}", file="rows.csv", key="row 1", expected=", ".join(["label"] * 9000)
    )
    assert str(error).startswith("rows.csv: row 1: unknown label 'xxx")
    assert str(error).count("…") == 2
    assert len(str(error)) < 1100
    assert len(error.problem) > 9000

"""Exit statuses, and our own errors found inside those that Ray wraps around them."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from vrtspike.cli.exit_status import outcome_of_command
from vrtspike.errors import DataFormatError
from vrtspike.runtime.refusal import find_our_error
from vrtspike.storage.atomic import FIXES


class WrappedError(RuntimeError):
    """An error that carries its cause as Ray's do."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"a long remote traceback of {cause}")
        self.cause = cause


class WrappedAlikeError(WrappedError, DataFormatError):
    """An error that is also of its cause's class, as Ray's task errors are."""

    def __init__(self, cause: BaseException) -> None:
        DataFormatError.__init__(self, "a long remote traceback")
        self.cause = cause


def run(error: BaseException | None, *, status: int = 0, file: Path | None = None) -> int:
    """Return the exit status of a command whose body raises, or sets a status."""
    with (
        pytest.raises(SystemExit) as caught,
        outcome_of_command(file, debug=False, say_error=lines.append) as outcome,
    ):
        outcome.status = status
        if error is not None:
            raise error
    return int(caught.value.code or 0)


lines: list[str] = []


@pytest.mark.parametrize(
    "wrap", [lambda e: e, WrappedError, WrappedAlikeError, lambda e: WrappedError(WrappedError(e))]
)
def test_our_error_is_found_inside_others(wrap: type[WrappedError]) -> None:
    error = DataFormatError("wrong size", got=1)
    assert find_our_error(wrap(error)) is error


def test_our_error_is_found_among_causes_and_worker_failures() -> None:
    error = DataFormatError("wrong size")
    try:
        raise RuntimeError("outer") from error
    except RuntimeError as outer:
        assert find_our_error(outer) is error
    failed = RuntimeError("workers failed")
    failed.worker_failures = {1: WrappedError(error)}  # type: ignore[attr-defined]
    assert find_our_error(failed) is error


def test_other_errors_are_not_ours_even_in_a_circle() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert find_our_error(first) is None


def test_statuses_and_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "new/result.json"
    assert run(DataFormatError("wrong size", got=1), file=file) == 2
    assert json.loads(file.read_text())["what"] == "wrong size"
    assert run(ValueError("several\nlines"), file=file) == 1
    assert json.loads(file.read_text()) == {
        "status": 1,
        "error": "ValueError",
        "what": "several lines",
    }
    assert "several lines" in lines[-1] and "--debug" in lines[-1]
    assert run(KeyboardInterrupt()) == 130
    assert run(None, status=1) == 1


def test_success_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    with outcome_of_command(file, debug=False, say_error=lines.append) as outcome:
        outcome.facts = {"path": tmp_path}
    assert json.loads(file.read_text()) == {"status": 0, "path": str(tmp_path)}


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    for place in (tmp_path, "s3://key:secret@bucket/result.json"):
        with (
            pytest.raises(SystemExit) as caught,
            outcome_of_command(place, debug=False, say_error=lines.append),
        ):
            pytest.fail("the work was started")
        assert caught.value.code == 2
        assert "--json" in lines[-1] and "cannot" in lines[-1] and "secret" not in lines[-1]


@pytest.mark.parametrize(("status", "ends"), [(0, 2), (1, 1)])
def test_a_file_that_cannot_be_written_in_the_end(status: int, ends: int, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    with (
        pytest.raises(SystemExit) as caught,
        outcome_of_command(file, debug=False, say_error=lines.append) as outcome,
    ):
        outcome.status = status
        file.mkdir()
    assert caught.value.code == ends
    assert "--json: cannot write the file" in lines[-1]


def test_an_error_keeps_what_was_found_before(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    with (
        pytest.raises(SystemExit),
        outcome_of_command(file, debug=False, say_error=lines.append) as outcome,
    ):
        outcome.facts = {"findings": [1]}
        raise DataFormatError("no page")
    found = json.loads(file.read_text())
    assert (found["status"], found["findings"], found["what"]) == (2, [1], "no page")


SYSTEM = [
    (errno.ENOSPC, "No space left.*free space"),
    (errno.EROFS, "Read-only file system.*write elsewhere"),
    (errno.EDQUOT, "quota"),
    (errno.EACCES, "Permission denied"),
    (errno.ENAMETOOLONG, "File name too long.*shorter names"),
    (errno.EMFILE, "Too many open files.*ulimit -n"),
    (errno.EIO, "Input/output error"),
]


@pytest.mark.parametrize(("number", "said"), SYSTEM)
@pytest.mark.parametrize(
    "wrap", [lambda e: e, WrappedError, lambda e: WrappedError(WrappedError(e))]
)
def test_what_the_system_refuses_is_one_line(
    number: int, said: str, wrap: type[WrappedError]
) -> None:
    lines.clear()
    assert run(wrap(OSError(number, os.strerror(number), "a/b.png"))) == 2
    (line,) = lines
    assert re.search(said, line) and "[a/b.png]" in line
    assert "unexpectedly" not in line and "\n" not in line and "\x1b" not in line


def test_too_little_memory_is_one_line() -> None:
    lines.clear()
    assert run(WrappedError(MemoryError())) == 2
    assert lines == [f"the machine has no memory left. Fix: {FIXES[errno.ENOMEM]}"]


def test_what_is_unexpected_is_the_cause_and_without_colours() -> None:
    lines.clear()
    cause = ValueError("\x1b[36mray::Map()\x1b[39m went\nwrong")
    assert run(WrappedError(cause)) == 1
    assert lines == ["failed unexpectedly: ValueError: ray::Map() went wrong (--debug tells where)"]


def test_our_error_goes_before_what_the_system_says() -> None:
    ours = DataFormatError("cannot write the file")
    try:
        raise ours from OSError(errno.ENOSPC, "No space left on device")
    except DataFormatError as error:
        assert find_our_error(error) is ours
    try:
        raise OSError(errno.ENOSPC, "No space left on device") from ours
    except OSError as error:
        assert find_our_error(error) is ours

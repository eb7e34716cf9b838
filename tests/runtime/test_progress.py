"""The progress line: what a log shows, and what a terminal shows."""

from __future__ import annotations

import io

import pytest

from vrtspike.runtime.progress import Progress, clock_text


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_time_left_follows_the_pace_since_the_first_update_of_this_process() -> None:
    clock = Clock()
    progress = Progress("train", 1000, stream=io.StringIO(), clock=clock)
    with progress:
        clock.now += 60  # start-up does not count
        progress.update(500)
        assert progress.remaining() is None
        clock.now += 10
        progress.update(600)
        assert progress.remaining() == pytest.approx(40)


def test_a_log_gets_few_lines_the_first_and_the_last_among_them() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress("prepare", 100, stream=stream, clock=clock, plain_seconds=30) as progress:
        for done in range(101):
            progress.update(done, loss=0.123456, psnr="27.1 dB", memory=None)
            clock.now += 1
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("prepare: 0/100  loss 0.1235  psnr 27.1 dB")
    assert lines[-1] == "prepare: 100/100  loss 0.1235  psnr 27.1 dB  1:41"


def test_a_failed_phase_does_not_claim_its_end() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyError), Progress("prepare", 2, stream=stream) as progress:
        progress.update(1)
        raise KeyError
    assert stream.getvalue().count("prepare") == 1


def test_a_terminal_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with Progress("train fused", 3, stream=stream) as progress:
        for done in range(4):
            progress.update(done, loss=0.5, note="a long text " * 20)
    assert stream.getvalue().count("\n") == 1
    assert "3/3" in stream.getvalue()


def test_what_is_said_is_a_line_of_its_own_whatever_it_holds() -> None:
    stream = io.StringIO()
    with Progress("tune", 3, stream=stream, clock=Clock()) as progress:
        progress.say("before")
        progress.update(1)
        progress.say("trial-000  [1/3] a=[1, 2]")
    lines = stream.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *("before", "tune", "trial-000  [1/3] a=[1, 2]", "tune"),
    ]


def test_on_a_terminal_it_stands_above_the_line_that_updates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with Progress("tune", 3, stream=stream) as progress:
        progress.update(1)
        progress.say("[1/3] trial-000  a=[1, 2]  [red]27.1 dB")
        progress.update(3)
    text = stream.getvalue()
    assert "[1/3] trial-000  a=[1, 2]  [red]27.1 dB" in text
    assert text.count("\n") == 2 and text.rindex("trial-000") < text.rindex("3/3")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3725, "1:02:05"), (None, "-:--")]
)
def test_clock(seconds: float | None, text: str) -> None:
    assert clock_text(seconds) == text

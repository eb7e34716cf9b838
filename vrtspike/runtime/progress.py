"""One line that tells how far a phase is.

On a terminal a single line that updates in place: title, bar, count, the caller's fields, time
taken and time left. Elsewhere (a file, CI, a Ray job's log) the same as plain text, one line when
the phase starts to move, one every `plain_seconds`, and one at the end. The line goes to standard
error, so that standard output holds results only.

    with Progress("train fused", total=1000) as progress:
        progress.update(10, loss=0.031, psnr="27.1 dB")
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text


def clock_text(seconds: float | None) -> str:
    """Write a duration as m:ss or h:mm:ss."""
    if seconds is None:
        return "-:--"
    minutes, second = divmod(round(max(seconds, 0.0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def fields_text(fields: dict[str, object]) -> str:
    """Write `name value` pairs; floats with four significant digits."""
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in fields.items()
        if value is not None
    )


def counted(update: Callable[[int, int], None], total: int) -> Callable[[], None]:
    """Tell `update` that nothing of `total` is done; return what to call when one more is."""
    done = itertools.count(1)
    update(0, total)
    return lambda: update(next(done), total)


class Progress:
    """Show one phase's progress; use it as a context manager."""

    def __init__(
        self,
        title: str,
        total: int | None = None,
        *,
        stream: TextIO | None = None,
        plain_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title, self.total, self.done = title, total, 0
        self.fields: dict[str, object] = {}
        self._stream = sys.stderr if stream is None else stream
        self._plain_seconds, self._clock = plain_seconds, clock
        self._started = clock()
        self._first: tuple[float, int] | None = None
        self._last_plain: float | None = None
        self._rich: RichProgress | None = None

    def __enter__(self) -> Self:
        self._started = self._clock()
        if self._stream.isatty():
            self._rich = _terminal_line(Console(file=self._stream))
            self._rich.add_task(self.title, total=self.total, count="", note="", clock="")
            self._rich.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._rich is not None or kind is None:
            self._show()
        if self._rich is not None:
            self._rich.stop()

    def update(self, done: int, total: int | None = None, **fields: object) -> None:
        """Set how much is done and what is shown beside it; the time left follows from the pace."""
        now = self._clock()
        self.done = done
        self.total = self.total if total is None else total
        self.fields.update(fields)
        if self._first is None:
            self._first = (now, done)
        last = self._last_plain
        if self._rich is not None or last is None or now - last >= self._plain_seconds:
            self._last_plain = now
            self._show()

    def say(self, text: str) -> None:
        """Print a line of its own, above the one that updates."""
        if self._rich is not None:
            self._rich.console.print(text, markup=False, highlight=False)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()

    def elapsed(self) -> float:
        """Return the seconds since the phase was entered."""
        return self._clock() - self._started

    def remaining(self) -> float | None:
        """Return the seconds left at the pace since the first update; None: not known yet."""
        if self._first is None or self.total is None:
            return None
        start, first = self._first
        if self.done <= first:
            return None
        return (self._clock() - start) * (self.total - self.done) / (self.done - first)

    def _show(self) -> None:
        """Renew the terminal's line, or write one."""
        count = f"{self.done}" if self.total is None else f"{self.done}/{self.total}"
        note, clock = fields_text(self.fields), clock_text(self.elapsed())
        if self.total is None or self.done < self.total:
            clock += f", {clock_text(self.remaining())} left"
        if self._rich is None:
            self.say("  ".join(part for part in (f"{self.title}: {count}", note, clock) if part))
            return
        task = self._rich.task_ids[0]
        self._rich.update(
            task, completed=self.done, total=self.total, count=count, note=note, clock=clock
        )


class _NoteColumn(ProgressColumn):
    """Show the caller's fields, cut to what the terminal has room for."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], style="dim", no_wrap=True, overflow="ellipsis")


def _terminal_line(console: Console) -> RichProgress:
    """Build the line of a terminal: title, bar, count, fields, clock."""
    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[count]}"),
        _NoteColumn(),
        TextColumn("{task.fields[clock]}"),
        console=console,
        refresh_per_second=4,
    )

"""Texts that others chose show in a page, and do nothing else."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError

from vrtspike.report.page import TEMPLATES


def escape(text: str) -> str:
    """Return what every template makes of a text."""
    return TEMPLATES.from_string("{{ text }}").render(text=text)


class Seen(HTMLParser):
    """Collect what a browser would make of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= dict(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "text",
    [
        "<b>x</b>",
        "</p><script>alert(1)</script>",
        '" onload="x',
        "'><img src=x>",
        "&lt;b&gt;",
        "a & b",
    ],
)
def test_html_is_neither_an_element_nor_an_attribute(text: str) -> None:
    found = Seen(f'<p title="{escape(text)}">{escape(text)}</p>')
    assert found.tags == ["p"] and found.attributes == {"title": text} and found.text == text


@pytest.mark.parametrize("text", ["train/GOPR0384_11_00", "größer", "漢字", "naïve 100 %", "a-b"])
def test_what_runs_from_left_to_right_is_as_it_was(text: str) -> None:
    assert escape(text) == text


@pytest.mark.parametrize(
    "control", "\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
)
def test_what_turns_text_round_is_written_out_and_set_apart(control: str) -> None:
    text = escape(f"a{control}gnp.exe")
    assert text == f"\u2068a\\u{ord(control):04x}gnp.exe\u2069"


@pytest.mark.parametrize("text", ["שלום", "clip مقطع 3", "١٢٣"])
def test_right_to_left_names_are_whole_and_set_apart(text: str) -> None:
    assert escape(text) == f"\u2068{text}\u2069"


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        TEMPLATES.from_string("{{ nobody }}").render()

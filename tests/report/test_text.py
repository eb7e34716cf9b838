"""Texts that others chose show in a page, and do nothing else."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from vrtspike.report.markdown import code, table
from vrtspike.report.text import escape, markdown


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
    assert escape(text) == text and markdown(text) == text


@pytest.mark.parametrize(
    "control", "\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
)
def test_what_turns_text_round_is_written_out_and_set_apart(control: str) -> None:
    text = escape(f"a{control}gnp.exe")
    assert text == f"\u2068a\\u{ord(control):04x}gnp.exe\u2069"
    assert control not in markdown(f"a{control}b")


@pytest.mark.parametrize("text", ["שלום", "clip مقطع 3", "١٢٣"])
def test_right_to_left_names_are_whole_and_set_apart(text: str) -> None:
    assert escape(text) == f"\u2068{text}\u2069"
    assert markdown(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "[click](http://evil.example)",
        "![x](http://evil.example/pixel.png)",
        "[x][y]",
        "[y]: http://evil.example",
        "http://evil.example",
        "HTTPS://evil.example",
        "ftp://evil.example",
        "www.evil.example",
        "WWW.evil.example",
        "a@evil.example",
        "<http://evil.example>",
        "<a href=x>",
    ],
)
def test_markdown_has_no_link(text: str) -> None:
    for found in (markdown(text), table([text], [[text]]), code(text)):
        lower = found.lower()
        for link in ("](", "][", "]:", "://", "www.", "<"):
            assert link not in lower, found
        assert "@" not in lower.replace("\\@", "")


def test_a_cell_holds_its_text() -> None:
    for text in ("a|b", "a\\|b", "a\nb", "| --- |"):
        lines = table(["head"], [[text]]).splitlines()
        assert len(lines) == 3
        unescaped = lines[2].replace("\\\\", "").replace("\\|", "")
        assert unescaped.count("|") == 2
    assert code("a`b") == "`a'b`"
    assert table(["x"], [["**1.0** ± 0.2"]]).splitlines()[2] == "| **1.0** ± 0.2 |"

"""The page of a validation: whole in one file, of all that was found, whatever names say."""

from __future__ import annotations

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datasets.layout_trees import RGB_FOLDERS, WRITERS, Scene, Tree
from vrtspike.datasets.findings import Validation
from vrtspike.datasets.index import open_dataset
from vrtspike.datasets.validate import check_dataset
from vrtspike.report import validation as module
from vrtspike.report.validation import describe, thumbnail_uri, write_validation_report

SCENE = Scene(speed=0.3)
VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """Read a page: every tag is closed, and what is linked, shown and said."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.pictures.append(values["src"] or "")
        self.links += [values[name] or "" for name in ("href", "srcset") if name in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += f"{data} "


def write(tree: Tree, path: Path) -> tuple[str, Validation]:
    dataset = open_dataset(tree.root, tree.layout)
    found = check_dataset(dataset)
    write_validation_report(path, dataset, found)
    return path.read_text(encoding="utf-8"), found


def decoded(uri: str) -> np.ndarray:  # type: ignore[type-arg]
    assert uri.startswith("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("L"), float)


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_has_a_page_that_is_whole(name: str, tmp_path: Path) -> None:
    tree = WRITERS[name](tmp_path / "set", scene=SCENE)
    text, found = write(tree, tmp_path / "page.html")
    page = Page(text)
    assert page.links == []
    assert not re.search(r"https?://|@import|url\((?!data:)", text)
    assert "nothing found" in page.text
    assert all(check.name in page.text for check in found.sequences)
    pictures = {"spikecv": 1, **dict.fromkeys(RGB_FOLDERS, 2)}.get(name, 3)
    assert len(page.pictures) == pictures * len(tree.sequences)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html", "set"]


def test_pictures_show_the_middle_frame(tmp_path: Path) -> None:
    tree = WRITERS["own"](tmp_path / "set", scene=SCENE)
    text, _ = write(tree, tmp_path / "page.html")
    blurred, sharp, spikes = map(decoded, Page(text).pictures[:3])
    written = tree.sequences["train", "straße 1"]
    for found, expected in ((blurred, written.blurred[2]), (sharp, written.sharp[2])):
        assert np.abs(found - expected @ (0.299, 0.587, 0.114)).mean() < 4
    assert spikes.shape == (24, 32)
    rate = written.spikes[2][:32].mean(axis=0) * 2 * 255
    assert np.abs(spikes - rate.clip(0, 255)).mean() < 8


def test_findings_are_told_with_place_and_numbers(tmp_path: Path) -> None:
    tree = WRITERS["own"](tmp_path / "set", scene=SCENE)
    sharp = tmp_path / "set" / "val" / "zwei" / "sharp" / "000002.png"
    sharp.write_bytes(b"")
    info = tmp_path / "set" / "dataset.yaml"
    info.write_text(info.read_text().replace("spike:", "spike:\n  flip: false"))
    text, found = write(tree, tmp_path / "page.html")
    assert found.kinds == {"orientation": 2, "image": 1}
    page = Page(text)
    for finding in found.findings:
        assert finding.where.removeprefix(f"{tree.root}/") in page.text
        assert finding.message in page.text
    assert "spikes fit the frames better upside down" in page.text
    assert "frames 64 × 48, spikes 32 × 24 at 1,000 Hz, threshold 2, 40 steps a frame" in page.text
    assert len(page.pictures) == 5, "the broken image has none"
    assert page.text.index("not an image") > 0


def test_names_from_outside_cannot_change_the_page(tmp_path: Path) -> None:
    evil = '<img src=x onerror="alert(1)">&amp;'
    tree = WRITERS["own"](tmp_path / "<script>alert(1)<b>", scene=SCENE)
    (tree.root / "val" / "zwei").rename(tree.root / "val" / evil)
    (tree.root / "val" / evil / "spike" / "000001.dat").unlink()
    text, found = write(tree, tmp_path / "page.html")
    page = Page(text)
    assert text.count("<script>") == 1
    assert all(picture.startswith("data:") for picture in page.pictures)
    assert evil in page.text
    assert found.kinds == {"missing": 1}


def test_sequences_with_findings_come_first_and_not_all_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = WRITERS["own"](tmp_path / "set", scene=SCENE)
    (tree.root / "val" / "zwei" / "sharp" / "000001.png").write_bytes(b"")
    monkeypatch.setattr(module, "SHOWN_SEQUENCES", 1)
    text, _ = write(tree, tmp_path / "page.html")
    assert len(Page(text).pictures) == 3
    assert "<h3>val/zwei</h3>" in text
    assert "<h3>train" not in text
    assert "1 more sequences are not shown" in text


def test_a_sequence_of_which_nothing_can_be_shown_says_why(tmp_path: Path) -> None:
    tree = WRITERS["spk_gopro"](tmp_path / "set", scene=SCENE)
    shutil.rmtree(tree.root / "train" / "GOPR0372_07_00" / "spike")
    text, _ = write(tree, tmp_path / "page.html")
    assert "no frame has all of its files" in text
    for path in tree.root.rglob("train/*/*/*.png"):
        path.write_bytes(b"")
    text, _ = write(tree, tmp_path / "page.html")
    assert "unreadable image" in text


def test_geometry_and_times_are_stated(tmp_path: Path) -> None:
    tree = WRITERS["align_late"](tmp_path, scene=SCENE)
    line = describe(open_dataset(tree.root).clips("val")[0].info)
    assert line == (
        "frames 64 × 48, spikes 32 × 24 at 1,000 Hz, threshold 2, 40 steps a frame, "
        "exposure [4, 36), target step 20, stream +6 steps"
    )
    tree = WRITERS["reds"](tmp_path / "rgb", scene=SCENE)
    assert describe(open_dataset(tree.root, "reds").clips("test")[0].info).endswith("no spikes")


def test_large_frames_become_small_pictures() -> None:
    image = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    uri = thumbnail_uri(image)
    assert decoded(uri).shape == (180, 320)
    assert len(uri) < 80_000

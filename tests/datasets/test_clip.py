"""Clips read windows of what was written, whatever files hold it, and refuse what is spoilt."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datasets.layout_trees import WRITERS, Scene, Tree
from vrtspike.datasets.clip import Clip, iter_spikes, read_frames, read_spikes, read_spikes_around
from vrtspike.datasets.index import open_dataset
from vrtspike.errors import DataFormatError
from vrtspike.spikes import stream
from vrtspike.video.image_file import read_image


def clip_of(tree: Tree) -> Clip:
    (split, sequence), *_ = tree.sequences
    return open_dataset(tree.root, tree.layout).clip(split, sequence)


def around(stream: np.ndarray, start: int, stop: int, reach: int) -> tuple[np.ndarray, int]:  # type: ignore[type-arg]
    """Cut a window out of a stream, the naive way."""
    first = max(start - reach, 0)
    return stream[first : stop + reach], start - first


SCENE = Scene(frame=(16, 32))


@pytest.mark.parametrize("reach", [0, 1, 20, 40, 41, 95, 1000])
@pytest.mark.parametrize("name", ["own", "spk_gopro"])
def test_files_of_frames_that_follow_one_another_are_one_stream(
    name: str, reach: int, tmp_path: Path
) -> None:
    tree = WRITERS[name](tmp_path, scene=SCENE)
    clip, written = clip_of(tree), next(iter(tree.sequences.values()))
    stream, length = np.concatenate(written.spikes), written.steps_per_frame
    for index in range(len(clip.frames)):
        found, start = read_spikes_around(clip, index, reach)
        expected, at = around(stream, length * index, length * (index + 1), reach)
        assert start == at
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("reach", [0, 3, 25, 60, 1000])
@pytest.mark.parametrize(("name", "offset"), [("align", 0), ("align_late", 6)])
def test_one_stream_is_read_beyond_its_frames(
    name: str, offset: int, reach: int, tmp_path: Path
) -> None:
    tree = WRITERS[name](tmp_path, scene=SCENE)
    clip = clip_of(tree)
    (file,) = clip.steps
    stream = clip.stream(file)[:]
    assert len(stream) == 50 + 47 * 4
    for index in range(len(clip.frames)):
        start = 25 + 47 * index + offset
        found, at = read_spikes_around(clip, index, reach)
        expected = around(stream, start, start + 40, reach)
        assert at == expected[1]
        np.testing.assert_array_equal(found, expected[0])


@pytest.mark.parametrize("reach", [0, 5, 16, 400])
def test_a_stream_of_x4k_is_read_beyond_its_windows(reach: int, tmp_path: Path) -> None:
    tree = WRITERS["spk_x4k_33"](tmp_path, scene=SCENE)
    clip = clip_of(tree)
    stream = clip.stream(next(iter(clip.steps)))[:]
    for index in range(len(clip.frames)):
        found, at = read_spikes_around(clip, index, reach)
        expected = around(stream, 15 * index, 15 * index + 33, reach)
        assert at == expected[1]
        np.testing.assert_array_equal(found, expected[0])


@pytest.mark.parametrize("reach", [0, 20, 400])
def test_files_with_guard_steps_end_where_they_end(reach: int, tmp_path: Path) -> None:
    tree = WRITERS["s_sdm"](tmp_path)
    clip, written = clip_of(tree), next(iter(tree.sequences.values()))
    for index in range(len(clip.frames)):
        found, at = read_spikes_around(clip, index, reach)
        assert at == 0
        np.testing.assert_array_equal(found, written.spikes[index])


@pytest.mark.parametrize("offset", [-50, -7, 7, 40, 50])
def test_a_time_offset_reads_across_files(offset: int, tmp_path: Path) -> None:
    tree = WRITERS["own"](tmp_path, scene=SCENE)
    text = (tmp_path / "dataset.yaml").read_text()
    (tmp_path / "dataset.yaml").write_text(
        text.replace("spike:\n", f"spike:\n  time_offset_steps: {offset}\n")
    )
    clip = clip_of(tree)
    stream = np.concatenate(next(iter(tree.sequences.values())).spikes)
    inside = [i for i in range(4) if 0 <= 40 * i + offset <= len(stream) - 40]
    assert [frame.name for frame in clip.frames] == [f"{i:06d}" for i in inside]
    for place, index in enumerate(inside):
        start = 40 * index + offset
        np.testing.assert_array_equal(
            read_spikes(clip, place, place + 1)[0], stream[start : start + 40]
        )
        used = {piece.file for frame in clip.frames for piece in frame.spikes}
        if len(used) == 4:
            found, at = read_spikes_around(clip, place, 9)
            expected = around(stream, start, start + 40, 9)
            assert at == expected[1]
            np.testing.assert_array_equal(found, expected[0])


def test_frames_without_spikes_have_none_to_read(tmp_path: Path) -> None:
    clip = clip_of(WRITERS["reds"](tmp_path))
    for read in (lambda: read_spikes(clip), lambda: read_spikes_around(clip, 0, 3)):
        with pytest.raises(DataFormatError, match="the clip has no spikes"):
            read()


IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_images_of_8_bits_are_read(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(IMAGE).convert(mode)
    path = tmp_path / "ein bild ü.png"
    image.save(path)
    np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))


def deep_png(path: Path) -> None:
    """Write a PNG of 16-bit RGB, which Pillow reads as 8 bits without a word."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    rows = b"".join(b"\0" + row.tobytes() for row in (IMAGE.astype(">u2") * 257).astype(">u2"))
    header = struct.pack(">IIBBBBB", 32, 24, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def test_images_of_16_bits_and_with_transparency_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    deep_png(path)
    with Image.open(path) as image:
        assert image.mode == "RGB", "nothing but the decoder's name tells"
    with pytest.raises(DataFormatError, match=r"unsupported kind.*RGB, 16 bits.*8-bit RGB"):
        read_image(path)
    Image.fromarray(IMAGE[..., 0].astype(np.uint16) * 257).save(path)
    with pytest.raises(DataFormatError, match="unsupported kind"):
        read_image(path)
    for mode in ("RGBA", "LA", "CMYK", "F"):
        file = tmp_path / ("a.tif" if mode in ("CMYK", "F") else "a.png")
        picture = Image.fromarray(IMAGE).convert(mode)
        if mode.endswith("A"):
            picture.putalpha(100)
        picture.save(file)
        with pytest.raises(DataFormatError, match=f"unsupported kind.*got {mode}"):
            read_image(file)


def test_another_size_is_refused_before_the_pixels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(IMAGE).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataFormatError, match=r"another size.*got 24x32, expected 24x31"):
        read_image(path, (24, 31))
    with pytest.raises(DataFormatError, match="unreadable image"):
        read_image(path, (24, 32))


def test_an_absurdly_large_header_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(IMAGE).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataFormatError, match=r"unreadable image.*exceeds limit"):
        read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_damaged_images_give_one_kind_of_error_or_an_image(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(IMAGE).save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        spoilt = bytearray(content[: rng.integers(len(content)) + 1])
        for at in rng.integers(0, min(len(spoilt), 400), 3):
            spoilt[at] ^= 1 << rng.integers(8)
        path.write_bytes(spoilt)
        try:
            assert read_image(path).dtype == np.uint8
        except DataFormatError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 20


@pytest.mark.parametrize("kind", [OSError, SyntaxError, ValueError, TypeError])
def test_whatever_a_decoder_raises_names_the_file(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise kind("a tag is\nno number")

    (tmp_path / "a.tif").touch()
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(DataFormatError, match=r"unreadable image .*a\.tif.*a tag is no number"):
        read_image(tmp_path / "a.tif")


def test_files_without_permission_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = clip_of(WRITERS["own"](tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(np, "memmap", refuse)
    with pytest.raises(DataFormatError, match=r"sharp/000000\.png.*Permission denied"):
        read_frames(clip, "sharp")
    with pytest.raises(DataFormatError, match=r"spike/000000\.dat.*Permission denied.*permission"):
        read_spikes(clip)


@pytest.mark.parametrize("name", ["align", "own", "spikecv"])
@pytest.mark.parametrize("window", [(0, None), (3, 17)])
def test_steps_in_pieces_are_the_steps_at_once(
    name: str, window: tuple[int, int | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = WRITERS[name](tmp_path, scene=SCENE)
    if name == "own":  # a frame's steps lie in two files
        path = tmp_path / "dataset.yaml"
        path.write_text(path.read_text().replace("spike:\n", "spike:\n  time_offset_steps: 5\n"))
    clip = clip_of(tree)
    monkeypatch.setattr(stream, "PIECE_BYTES", 7 * 8 * 16)
    start, stop = window
    pieces = list(iter_spikes(clip, 0, start, stop))
    assert max(map(len, pieces)) <= 7
    np.testing.assert_array_equal(np.concatenate(pieces), read_spikes(clip, 0, 1)[0, start:stop])


def test_one_frame_is_read_without_a_copy_more(tmp_path: Path) -> None:
    tree = WRITERS["spikecv"](tmp_path, scene=SCENE)
    clip = clip_of(tree)
    (file,) = clip.files
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes() * 1000)
    clip = clip_of(tree)
    stored = clip.info.camera.model_copy(update={"flip": False})  # turned upright is a copy
    clip = replace(clip, info=clip.info.model_copy(update={"spike": stored}))
    tracemalloc.start()
    size = read_spikes(clip).size
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == 20_000 * 8 * 16
    assert most < 1.5 * size

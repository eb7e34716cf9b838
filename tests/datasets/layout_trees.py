"""Small dataset folders in the layouts of the field, of a photograph that moves as we know.

Each writer returns what it wrote, so that tests compare readers with the arrays themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from tests.datasets.align_logs import write_align_log
from vrtspike.config.choices import LayoutName
from vrtspike.datasets.align_log import AlignEntry

Array = NDArray[Any]
FRAME = (48, 64)


@dataclass
class Written:
    """What a sequence holds: frames by name, their images and spikes, and its times."""

    split: str
    sequence: str
    exposure: tuple[int, int]
    target: int
    steps_per_frame: int
    names: list[str] = field(default_factory=list)
    blurred: list[Array] = field(default_factory=list)
    sharp: list[Array] = field(default_factory=list)
    spikes: list[Array] = field(default_factory=list)
    """Steps of each frame."""


@dataclass
class Tree:
    """A dataset folder and its sequences by split and name."""

    root: Path
    layout: LayoutName
    sequences: dict[tuple[str, str], Written]


@dataclass(frozen=True)
class Scene:
    """A photograph that moves to the right; the spike camera's pixels are `scale` frame pixels."""

    seed: int = 0
    frame: tuple[int, int] = FRAME
    scale: int = 2
    speed: float = 0.12
    """Pixels a step."""
    threshold: float = 2.0

    def view(self, step: float) -> Array:
        """Return the RGB picture at an instant, float in 0 to 255."""
        height, width = self.frame
        picture = PICTURES[self.seed % len(PICTURES)]
        at = 20.0 + self.speed * step
        left, share = int(at), at % 1
        rows = slice(90, 90 + height)
        a, b = (picture[rows, x : x + width].astype(float) for x in (left, left + 1))
        return np.asarray((1 - share) * a + share * b)

    def views(self, first: int, last: int) -> Array:
        """Return the pictures of the steps `[first, last)`."""
        return np.stack([self.view(step) for step in range(first, last)])

    def spikes(self, steps: int, start: int = 0) -> Array:
        """Return the spikes of the steps from `start`."""
        height, width = self.frame
        shape = (height // self.scale, width // self.scale)
        charge = np.random.default_rng(self.seed).uniform(0, self.threshold, shape)
        fired = np.zeros((steps, *shape), bool)
        for step in range(steps):
            gray = self.view(start + step) @ (0.299, 0.587, 0.114) / 255
            charge += gray.reshape(shape[0], self.scale, shape[1], self.scale).mean((1, 3))
            fired[step] = charge >= self.threshold
            charge[fired[step]] -= self.threshold
        return fired


PICTURES = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())


def pack(spikes: Array) -> bytes:
    """Pack spikes as the field does: rows bottom-up, least significant bit first, no padding."""
    return b"".join(np.packbits(step[::-1].ravel(), bitorder="little").tobytes() for step in spikes)


def unpack(content: bytes, height: int, width: int) -> Array:
    """Read what `pack` wrote."""
    bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    return bits.reshape(-1, height, width)[:, ::-1].astype(bool)


def to_image(picture: Array) -> Array:
    """Round to 8 bits."""
    return np.asarray(picture.round().astype(np.uint8))


def save(path: Path, image: Array) -> None:
    """Write an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def save_bytes(path: Path, content: bytes) -> None:
    """Write a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def info_of(scene: Scene, **times: Any) -> dict[str, Any]:
    """Return the content of a dataset.yaml."""
    height, width = scene.frame
    return {
        "spike": {
            "height": height // scene.scale,
            "width": width // scene.scale,
            "rate_hz": 1000.0,
            "threshold": scene.threshold,
        },
        "frame": {"height": height, "width": width},
        "source": "a test",
        **times,
    }


def exposed(scene: Scene, start: int, exposure: tuple[int, int], target: int) -> tuple[Array, ...]:
    """Return blurred and sharp image of the frame whose first step is `start`."""
    blurred = scene.views(start + exposure[0], start + exposure[1]).mean(axis=0)
    return to_image(blurred), to_image(scene.view(start + target))


def write_own(
    root: Path, *, frames: int = 4, scene: Scene | None = None, changed: bool = False
) -> Tree:
    """Write our layout: two splits; with `changed` a sequence has other times."""
    scene = scene or Scene()
    usual = {"steps_per_frame": 40, "exposure": (0, 32), "target_step": 16}
    other = {"exposure": (4, 36), "target_step": 20}
    found = {}
    for seed, (split, sequence) in enumerate((("train", "straße 1"), ("val", "zwei"))):
        times = usual | (other if changed and seed else {})
        moving = replace(scene, seed=seed)
        written = Written(split, sequence, times["exposure"], times["target_step"], 40)
        stream = moving.spikes(40 * frames)
        folder = root / split / sequence
        for index in range(frames):
            name = f"{index:06d}"
            images = exposed(moving, 40 * index, written.exposure, written.target)
            add(written, name, *images, stream[40 * index : 40 * index + 40])
            save(folder / "blurred" / f"{name}.png", images[0])
            save(folder / "sharp" / f"{name}.png", images[1])
            save_bytes(folder / "spike" / f"{name}.dat", pack(written.spikes[-1]))
        found[split, sequence] = written
        if changed and seed:
            (folder / "sequence.yaml").write_text(yaml.safe_dump(to_plain(other)))
    (root / "dataset.yaml").write_text(yaml.safe_dump(to_plain(info_of(scene, **usual))))
    return Tree(root, "vrtspike", found)


def write_align(
    root: Path, *, frames: int = 4, offset: int = 0, scene: Scene | None = None
) -> Tree:
    """Write our layout with one stream a sequence and an align log; the stream runs late by
    `offset` steps, and starts and ends 25 steps outside of the frames."""
    scene = scene or Scene()
    exposure, target, gap, lead = (4, 36), 20, 47, 25
    found = {}
    for seed, (split, sequence) in enumerate((("train", "eins"), ("val", "zwei ü"))):
        moving = replace(scene, seed=seed)
        written = Written(split, sequence, exposure, target, 40)
        stream = moving.spikes(2 * lead + gap * frames, start=-offset)
        folder = root / split / sequence
        entries = []
        for index in range(frames):
            start = lead + gap * index
            images = exposed(moving, start, exposure, target)
            add(written, f"f{index}", *images, stream[start + offset : start + offset + 40])
            save(folder / "blurred" / f"f{index}.png", images[0])
            save(folder / "sharp" / f"f{index}.png", images[1])
            t0, t1 = ((start + step) / 1000 for step in exposure)
            entries.append(AlignEntry(sequence, index, t0, t1, 0))
        write_align_log(folder / "align.csv", entries)
        save_bytes(folder / "spike.dat", pack(stream))
        found[split, sequence] = written
    info = info_of(scene, steps_per_frame=40, exposure=list(exposure), target_step=target)
    info["spike"]["time_offset_steps"] = offset
    (root / "dataset.yaml").write_text(yaml.safe_dump(info))
    return Tree(root, "vrtspike", found)


def write_spk_gopro(
    root: Path, *, frames: int = 3, gamma: bool = False, scene: Scene | None = None
) -> Tree:
    """Write Spk-GoPro: yy from the sequence's name, blur of yy frames every 8 steps."""
    scene = scene or Scene()
    blur = "blur_gamma" if gamma else "blur"
    found = {}
    names = (("train", "GOPR0372_07_00"), ("test", "GOPR0384_11_00"))
    for seed, (split, sequence) in enumerate(names):
        averaged = int(sequence.split("_")[1])
        moving, length = replace(scene, seed=seed), 8 * averaged
        written = Written(split, sequence, (0, length - 7), 8 * (averaged // 2), length)
        stream = moving.spikes(length * frames)
        folder = root / split / sequence
        for index in range(frames):
            name, start = f"{index + 47:06d}", length * index
            views = moving.views(start, start + length)[::8]
            images = to_image(views.mean(axis=0)), to_image(views[averaged // 2])
            add(written, name, *images, stream[start : start + length])
            save(folder / blur / f"{name}.png", images[0])
            save(folder / "sharp" / f"{name}.png", images[1])
            save_bytes(folder / "spike" / f"{name}.dat", pack(written.spikes[-1]))
        found[split, sequence] = written
    return Tree(root, "spk_gopro_gamma" if gamma else "spk_gopro", found)


def write_x4k(root: Path, *, exposure: int = 33, scene: Scene | None = None) -> Tree:
    """Write Spk-X4K: a stream and all sharp frames of a clip, a blurred frame every 15."""
    scene = scene or Scene()
    steps, half = 113, exposure // 2
    found = {}
    names = (("train", "002/occ008.320 f2881", "002_occ008.320 f2881"), ("val", "one", "one"))
    for seed, (split, folder, sequence) in enumerate(names):
        moving = replace(scene, seed=seed)
        written = Written(split, sequence, (0, exposure), half, exposure)
        stream, views = moving.spikes(steps), moving.views(0, steps)
        for step in range(steps):
            name = f"{step // 4:04d}" + (f"_{step % 4 - 1:03d}" if step % 4 else "")
            save(root / f"{split}_fullRGB" / folder / f"{name}.png", to_image(views[step]))
            if step >= half and (step - half) % 15 == 0 and step + half < steps:
                window = slice(step - half, step + half + 1)
                images = to_image(views[window].mean(axis=0)), to_image(views[step])
                add(written, name, *images, stream[window])
                save(root / f"{split}_blurry_{exposure}" / folder / f"{name}.png", images[0])
        save_bytes(root / f"{split}_spike_2xds" / folder / "spike.dat", pack(stream))
        found[split, sequence] = written
    return Tree(root, "spk_x4k_65" if exposure == 65 else "spk_x4k_33", found)


def write_s_sdm(root: Path, *, frames: int = 3, scene: Scene | None = None) -> Tree:
    """Write GOPRO of S-SDM: 137 steps, of which 97 are exposed; more sharp than blurred frames."""
    scene = replace(scene or Scene(), scale=4, frame=(96, 128))
    found = {}
    for seed, (split, sequence) in enumerate((("train", "GOPR0372_07_00"), ("test", "GOPR0384"))):
        moving = replace(scene, seed=seed)
        written = Written(split, sequence, (20, 117), 68, 137)
        for index in range(frames):
            name, start = f"{index:05d}", 97 * index
            images = exposed(moving, start, (20, 117), 68)
            add(written, name, *images, moving.spikes(137, start))
            save(root / split / "blur_data" / sequence / f"{name}.png", images[0])
            save(root / split / "sharp_data" / sequence / f"{name}.png", images[1])
            save(root / split / "sharp_data" / sequence / f"{name}_more.png", images[1])
            save_bytes(
                root / split / "spike_data" / sequence / f"{name}.dat", pack(written.spikes[-1])
            )
        found[split, sequence] = written
    return Tree(root, "s_sdm", found)


RGB_FOLDERS: dict[LayoutName, tuple[str, str]] = {
    "gopro": ("{split}/{sequence}/blur", "{split}/{sequence}/sharp"),
    "gopro_gamma": ("{split}/{sequence}/blur_gamma", "{split}/{sequence}/sharp"),
    "dvd": ("{split}/{sequence}/input", "{split}/{sequence}/GT"),
    "reds": ("{split}/{split}_blur/{sequence}", "{split}/{split}_sharp/{sequence}"),
}


def write_rgb(
    root: Path, layout: LayoutName, *, frames: int = 3, scene: Scene | None = None
) -> Tree:
    """Write blurred and sharp frames without spikes; REDS names sequences alike in its splits."""
    scene = scene or Scene()
    found = {}
    names = ("000", "000") if layout == "reds" else ("GOPR0372_07_00", "IMG 0030 ü")
    for seed, (split, sequence) in enumerate(zip(("train", "test"), names, strict=True)):
        moving = replace(scene, seed=seed)
        written = Written(split, sequence, (0, 1), 0, 1)
        for index in range(frames):
            images = exposed(moving, 40 * index, (0, 33), 16)
            add(written, f"{index:08d}", *images, np.zeros((0, 0, 0), bool))
            for folder, image in zip(RGB_FOLDERS[layout], images, strict=True):
                place = root / folder.format(split=split, sequence=sequence)
                save(place / f"{index:08d}.png", image)
        found[split, sequence] = written
    return Tree(root, layout, found)


def write_spikecv(root: Path, *, scene: Scene | None = None) -> Tree:
    """Write SpikeCV folders: one at the root, whose streams lie in a subfolder, one below."""
    scene = scene or Scene()
    height, width = scene.frame[0] // scene.scale, scene.frame[1] // scene.scale
    values: dict[str, Any] = {"spike_h": height, "spike_w": width, "is_labeled": False}
    found = {}
    for seed, (config, extra, file, key) in enumerate(
        (
            ("", {"data_field_identifier": "roh daten"}, "roh daten/a.dat", (".", "a")),
            ("set ü", {"filename": "b*.dat"}, "b 1.dat", ("set ü", "b 1")),
        )
    ):
        steps = 20 + seed
        spikes = replace(scene, seed=seed).spikes(steps)
        save_bytes(root / config / file, pack(spikes))
        (root / config / "config.yaml").write_text(yaml.safe_dump(values | extra))
        written = Written(*key, (0, steps), steps // 2, steps)
        written.names.append(key[1])
        written.spikes.append(spikes)
        found[key] = written
    save_bytes(root / "set ü" / "other.dat", b"no stream of the pattern")
    return Tree(root, "spikecv", found)


def add(written: Written, name: str, blurred: Array, sharp: Array, spikes: Array) -> None:
    """Note a frame."""
    written.names.append(name)
    written.blurred.append(blurred)
    written.sharp.append(sharp)
    written.spikes.append(spikes)


def to_plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return values that safe YAML can hold."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


WRITERS: dict[str, Callable[..., Tree]] = {
    "own": write_own,
    "own_changed": lambda root, **more: write_own(root, changed=True, **more),
    "align": write_align,
    "align_late": lambda root, **more: write_align(root, offset=6, **more),
    "spk_gopro": write_spk_gopro,
    "spk_gopro_gamma": lambda root, **more: write_spk_gopro(root, gamma=True, **more),
    "spk_x4k_33": write_x4k,
    "spk_x4k_65": lambda root, **more: write_x4k(root, exposure=65, **more),
    "s_sdm": write_s_sdm,
    **{
        name: (lambda root, name=name, **more: write_rgb(root, name, **more))
        for name in RGB_FOLDERS
    },
    "spikecv": write_spikecv,
}
WITH_SPIKES_AND_FRAMES = [name for name in WRITERS if name not in RGB_FOLDERS and name != "spikecv"]

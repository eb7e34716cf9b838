"""The field's folder layouts: which file is what, and what is known of geometry and time.

Every layout names its files by patterns below the dataset's folder, so a dataset is indexed from
the list of its files alone. What a layout does not store, its paper says:

- `vrtspike`: ours, described by `dataset.yaml` (`vrtspike.datasets.info`).
- `spk_gopro`, `spk_gopro_gamma`: Spk-GoPro (SpkDeblurNet, 2023), `blur/` or `blur_gamma/`. In
  `GOPRxxxx_yy_zz` yy frames of 240 Hz are averaged, 8 spike steps apart; the `.dat` of a frame
  holds 8 yy steps, its sharp frame is the middle one, step 8 (yy // 2), and the first and the last
  averaged frame are steps 0 and 8 (yy - 1): that is the exposure, and its middle is the target.
- `spk_x4k_33`, `spk_x4k_65`: Spk-X4K1000FPS. One stream a clip, a step a frame; a blurred frame is
  the mean of 33 or 65 frames around its sharp one, both ends included.
- `s_sdm`: GOPRO of S-SDM (2024). 137 steps a frame: 97 of exposure between 20 and 20 guard steps.
- `gopro`, `gopro_gamma`, `dvd`, `reds`: blurred and sharp frames without spikes, for the baseline.
- `spikecv`: folders with SpikeCV's `config.yaml`; streams without frames.

Spikes of the published layouts are 2 (S-SDM: 4) times coarser than the frames, rows bottom-up, the
first pixel in the least significant bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from PIL import Image, UnidentifiedImageError

from vrtspike.config.choices import LayoutName
from vrtspike.datasets.info import (
    INFO_FILE,
    SEQUENCE_FILE,
    DatasetInfo,
    FrameInfo,
    SpikeInfo,
    parse_info,
)
from vrtspike.datasets.layout import Groups, Layout, SequenceFiles
from vrtspike.datasets.spikecv import CONFIG_FILE, SpikeCVInfo, read_spikecv
from vrtspike.errors import DataFormatError, one_line
from vrtspike.storage.folder import Folder, Stamp
from vrtspike.video.image_file import open_image, shown_size


class OwnLayout(Layout):
    """Ours: a `dataset.yaml`, and a `sequence.yaml` where a sequence differs, say all."""

    numbered = True
    aligned = True

    def __init__(self) -> None:
        super().__init__(
            blurred=(
                "{split}/{sequence}/blurred/{name}.{image}",
                "{split}/{sequence}/blur/{name}.{image}",
            ),
            sharp="{split}/{sequence}/sharp/{name}.{image}",
            spike=("{split}/{sequence}/spike/{name}.dat", "{split}/{sequence}/spike.dat"),
        )
        self._usual: tuple[bytes, DatasetInfo] | None = None

    def info(
        self, folder: Folder, files: Mapping[str, Stamp], sequence: SequenceFiles
    ) -> DatasetInfo:
        """Read `dataset.yaml` and what the sequence's own file changes in it."""
        where = folder.name(INFO_FILE)
        if self._usual is None:
            text = folder.read(INFO_FILE)
            self._usual = text, parse_info(text, where)
        text, usual = self._usual
        own = f"{sequence.split}/{sequence.sequence}/{SEQUENCE_FILE}"
        if own not in files:
            return usual
        return parse_info(text, where, (folder.read(own), folder.name(own)))


class SpkGoPro(Layout):
    """Spk-GoPro."""

    def __init__(self, blur: str) -> None:
        super().__init__(
            blurred=f"{{split}}/{{sequence}}/{blur}/{{name}}.{{image}}",
            sharp="{split}/{sequence}/sharp/{name}.{image}",
            spike="{split}/{sequence}/spike/{name}.dat",
        )
        self._blur = blur

    def info(
        self, folder: Folder, files: Mapping[str, Stamp], sequence: SequenceFiles
    ) -> DatasetInfo:
        """Take the averaged frames from the sequence's name."""
        if (match := re.fullmatch(r".*_(\d+)_\d+", sequence.sequence)) is None:
            raise DataFormatError(
                "the sequence's name does not say how many frames were averaged",
                where=f"{folder}/{sequence.split}",
                got=sequence.sequence,
                expected="GOPRxxxx_yy_zz with yy averaged frames",
            )
        if (averaged := int(match[1])) < 1:
            raise DataFormatError(
                "the sequence's name says that no frame was averaged",
                where=f"{folder}/{sequence.split}",
                got=sequence.sequence,
                expected="GOPRxxxx_yy_zz with yy >= 1",
            )
        frame, spike = _cameras(folder, sequence, 2, rate_hz=1920)
        return DatasetInfo(
            spike=spike,
            frame=frame,
            steps_per_frame=8 * averaged,
            exposure=(0, 8 * (averaged - 1) + 1),
            target_step=8 * (averaged // 2),
            source=f"Spk-GoPro, {self._blur}/ (means of {averaged} frames of 240 Hz)",
        )


class SpkX4K(Layout):
    """Spk-X4K1000FPS."""

    sharp_beyond_blurred = True

    def __init__(self, exposure: int) -> None:
        super().__init__(
            blurred=f"{{prefix}}_blurry_{exposure}/{{clip}}/{{name}}.{{image}}",
            sharp="{prefix}_fullRGB/{clip}/{name}.{image}",
            spike="{prefix}_spike_2xds/{clip}/spike.dat",
        )
        self._exposure = exposure

    def info(
        self, folder: Folder, files: Mapping[str, Stamp], sequence: SequenceFiles
    ) -> DatasetInfo:
        """Place a window of the exposure's length around the sharp frame."""
        steps = self._exposure
        frame, spike = _cameras(folder, sequence, 2, rate_hz=4000)
        return DatasetInfo(
            spike=spike,
            frame=frame,
            steps_per_frame=steps,
            exposure=(0, steps),
            target_step=steps // 2,
            continuous=False,
            source=f"Spk-X4K1000FPS, means of {steps} frames, a spike step each",
        )

    def frame_index(self, name: str) -> int:
        """Return 4 a for `a`, a frame of 1000 Hz, and 4 a + b + 1 for `a_b`, one between two."""
        match = re.fullmatch(r"(\d+)(?:_(\d+))?", name)
        if match is None:
            raise DataFormatError(
                "the frame's name says no instant", got=name, expected="such as 0001 or 0001_002"
            )
        return 4 * int(match[1]) + (0 if match[2] is None else int(match[2]) + 1)


class SSDM(Layout):
    """GOPRO of S-SDM."""

    sharp_beyond_blurred = True

    def __init__(self) -> None:
        super().__init__(
            blurred="{split}/blur_data/{clip}/{name}.{image}",
            sharp="{split}/sharp_data/{clip}/{name}.{image}",
            spike="{split}/spike_data/{clip}/{name}.dat",
        )

    def info(
        self, folder: Folder, files: Mapping[str, Stamp], sequence: SequenceFiles
    ) -> DatasetInfo:
        """Return the published times: 20 guard steps, 97 of exposure, 20 guard steps."""
        frame, spike = _cameras(folder, sequence, 4, rate_hz=1920)
        return DatasetInfo(
            spike=spike,
            frame=frame,
            steps_per_frame=137,
            exposure=(20, 117),
            target_step=68,
            continuous=False,
            source="GOPRO of S-SDM: means of 97 frames (13 of 240 Hz, interpolated)",
        )


class FramesOnly(Layout):
    """Blurred and sharp frames without a spike camera."""

    def __init__(self, source: str, **patterns: str | tuple[str, ...]) -> None:
        super().__init__(**patterns)
        self._source = source

    def info(
        self, folder: Folder, files: Mapping[str, Stamp], sequence: SequenceFiles
    ) -> DatasetInfo:
        """Return the frames' size."""
        return DatasetInfo(frame=_frame_size(folder, sequence), source=self._source)


class SpikeCV(Layout):
    """Streams without frames, as a `config.yaml` describes them; each is a sequence of one."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds = ("spike",)
        self._configs: dict[str, SpikeCVInfo] = {}

    def group(self, folder: Folder, files: Iterable[str]) -> Groups:
        """Find the streams that each `config.yaml` names; its folder is the split."""
        files = list(files)
        found: Groups = {}
        for config in (PurePosixPath(f) for f in files if PurePosixPath(f).name == CONFIG_FILE):
            described = self._described(folder, str(config))
            split = str(config.parent)  # "." at the root
            for file in sorted(files):
                path = PurePosixPath(file)
                if path.is_relative_to(config.parent) and described.names(
                    path.relative_to(config.parent)
                ):
                    key = split, path.stem
                    found[key] = SequenceFiles(*key, spike={path.stem: file})
        return found

    def info(
        self, folder: Folder, files: Mapping[str, Stamp], sequence: SequenceFiles
    ) -> DatasetInfo:
        """Take the geometry from the file, and the length from the stream's size."""
        config = str(PurePosixPath(sequence.split) / CONFIG_FILE)
        described = self._described(folder, config)
        spike = SpikeInfo(
            height=described.spike_h, width=described.spike_w, rate_hz=20_000, threshold=1
        )
        (file,) = sequence.spike.values()
        steps = max(1, files[file].size // spike.step_bytes)
        return DatasetInfo(
            spike=spike,
            frame=FrameInfo(height=spike.height, width=spike.width),
            steps_per_frame=steps,
            exposure=(0, steps),
            target_step=steps // 2,
            continuous=False,
            source=f"SpikeCV's {config}, which states no rate and no threshold: "
            "taken as 20 kHz and 1",
        )

    def _described(self, folder: Folder, config: str) -> SpikeCVInfo:
        if config not in self._configs:
            with folder.local([config]) as local:
                self._configs[config] = read_spikecv((local / config).parent)
        return self._configs[config]


def layout_of(name: LayoutName) -> Layout:
    """Return a layout by its name in the configuration."""
    match name:
        case "vrtspike":
            return OwnLayout()
        case "spk_gopro" | "spk_gopro_gamma":
            return SpkGoPro(_blur_folder(name))
        case "spk_x4k_33" | "spk_x4k_65":
            return SpkX4K(int(name[-2:]))
        case "s_sdm":
            return SSDM()
        case "gopro" | "gopro_gamma":
            return FramesOnly(
                f"GoPro, {_blur_folder(name)}/",
                blurred=f"{{split}}/{{sequence}}/{_blur_folder(name)}/{{name}}.{{image}}",
                sharp="{split}/{sequence}/sharp/{name}.{image}",
            )
        case "dvd":
            return FramesOnly(
                "DVD (Su et al., 2017)",
                blurred="{split}/{sequence}/input/{name}.{image}",
                sharp="{split}/{sequence}/GT/{name}.{image}",
            )
        case "reds":
            return FramesOnly(
                "REDS",
                blurred=(
                    "{prefix}_blur/{sequence}/{name}.{image}",
                    "[^/]+/{prefix}_blur/{sequence}/{name}.{image}",
                ),
                sharp=(
                    "{prefix}_sharp/{sequence}/{name}.{image}",
                    "[^/]+/{prefix}_sharp/{sequence}/{name}.{image}",
                ),
            )
        case "spikecv":
            return SpikeCV()


def _blur_folder(name: str) -> str:
    return "blur_gamma" if name.endswith("_gamma") else "blur"


def _cameras(
    folder: Folder, sequence: SequenceFiles, scale: int, rate_hz: float
) -> tuple[FrameInfo, SpikeInfo]:
    """Return a sequence's frames, and a spike camera of threshold 2, `scale` times coarser."""
    frame = _frame_size(folder, sequence)
    if frame.height % scale or frame.width % scale:
        raise DataFormatError(
            "the frames do not divide into the layout's spike pixels",
            where=sequence.where(folder),
            got=f"{frame.height}x{frame.width}",
            expected=f"multiples of {scale}",
            fix="use the frames as they were published, not cropped or resized",
        )
    rows, columns = frame.height // scale, frame.width // scale
    return frame, SpikeInfo(height=rows, width=columns, rate_hz=rate_hz, threshold=2)


def _frame_size(folder: Folder, sequence: SequenceFiles) -> FrameInfo:
    """Read the size of a sequence's frames from the header of the first readable one."""
    refusal: DataFormatError | None = None
    for file in [*sorted(sequence.blurred.values()), *sorted(sequence.sharp.values())]:
        try:
            with folder.open(file) as stream, open_image(stream) as image:
                height, width = shown_size(image)
                return FrameInfo(height=height, width=width)
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
            refusal = refusal or DataFormatError(
                "unreadable image", where=folder.name(file), got=one_line(error, 200)
            )
    raise refusal or DataFormatError("no frame", where=sequence.where(folder))

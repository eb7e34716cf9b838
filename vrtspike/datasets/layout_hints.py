"""Which layout a folder is in that was opened as another one: the advice in the refusal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import get_args

from vrtspike.config.choices import LayoutName
from vrtspike.datasets.info import INFO_FILE, no_info
from vrtspike.datasets.layouts import layout_of
from vrtspike.errors import DataFormatError
from vrtspike.storage.folder import Folder, Stamp


def likely_layouts(folder: Folder, files: Iterable[str]) -> list[LayoutName]:
    """Return the layouts under which the files make whole sequences, those that take most of them.

    Ours is not among them where there is no `dataset.yaml`.
    """
    files = list(files)
    found: dict[LayoutName, int] = {}
    for name in get_args(LayoutName):
        layout = layout_of(name)
        if name == "vrtspike" and INFO_FILE not in files:
            continue
        try:
            groups = layout.group(folder, files).values()
        except DataFormatError:
            continue  # a `config.yaml` of something else
        if any(all(sequence.of(kind) for kind in layout.kinds) for sequence in groups):
            found[name] = len(layout.kinds)
    return [name for name, kinds in found.items() if kinds == max(found.values())]


def missing_info(folder: Folder, files: Mapping[str, Stamp], unfinished: bool) -> DataFormatError:
    """Say that a folder is not ours, and which layout it may be."""
    return no_info(folder, unfinished, _likely(folder, files))


def no_sequence(folder: Folder, files: Mapping[str, Stamp], layout: LayoutName) -> DataFormatError:
    """Say that nothing in a folder is named as a layout has it, and which layout it may be."""
    return DataFormatError(
        "no sequence of this layout",
        where=folder,
        got=f"{len(files)} files, such as {next(iter(files))}" if files else "no file",
        expected=f"layout {layout}",
        fix=_likely(folder, files) or "give the folder that holds the splits",
    )


def _likely(folder: Folder, files: Iterable[str]) -> str | None:
    likely = likely_layouts(folder, files)
    return f"looks like {' or '.join(likely)}: set data.layout (--layout)" if likely else None

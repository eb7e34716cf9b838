"""`vrtspike simulate`: simulate spikes and blur from sharp video or rendered scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vrtspike.cli.console import (
    Debug,
    JsonFile,
    OptionalConfigFile,
    Overrides,
    command,
    load,
    say,
    short,
)
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.runtime.ray_session import connect, resolve_path


def simulate(
    overrides: Overrides = None,
    config: OptionalConfigFile = None,
    video: Annotated[
        Path | None, typer.Option(help="Sharp video, or folder of frames; default: render scenes.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Dataset folder to write; default: data.source.")
    ] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Simulate a dataset from video or scenes.

    Makes spikes, blurred and sharp frames from a sharp video or from rendered scenes.
    """
    with command(json_file, debug) as outcome:
        settings = load(config, overrides)
        from vrtspike.storage.folder import local_path

        folder = local_path(out or settings.data.source, "a simulation")
        if out:
            folder = resolve_path(folder, written=True)
        if video is None and settings.scenes is None:
            raise ConfigError(
                "nothing to simulate from",
                fix="give --video FILE, or a --config that has a `scenes:` section",
            )
        if video is not None and out is None:
            raise ConfigError("no folder for the simulated dataset", fix="give --out DIR")
        from vrtspike.runtime.progress import Progress
        from vrtspike.video.inspect import iter_frames

        # Check the video before Ray starts.
        if video is not None:
            video = resolve_path(video)
            if next(iter_frames(video), None) is None:
                raise DataFormatError("the video holds no frame", where=video)
        with connect(), Progress("simulate") as progress:
            from vrtspike.simulate.on_ray import simulate_scenes, simulate_video

            if video is not None:
                simulate_video(
                    video,
                    folder,
                    settings.camera,
                    progress.update,
                    settings=settings.video,
                )
            else:
                assert settings.scenes is not None
                simulate_scenes(settings.scenes, settings.camera, folder, progress.update)
        outcome.facts = {"dataset": str(folder)}
        say(f"dataset: {short(folder)}")

"""A setting that loads can be used: what no worker survives is refused where it is read."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from vrtspike.config.config import Config
from vrtspike.config.loader import change, known_keys, load_config
from vrtspike.errors import ConfigError

SECTIONS = {"scenes": {}, "scenes.vary": {}, "sweep": {"space": {"train.lr": {"grid": [1, 2]}}}}
HUGE = 10**15
ODD: list[tuple[str, Any]] = [
    *(("train.betas", value) for value in ([1, 2], [0.9, 1], [-0.1, 0.9], [0.9, math.inf])),
    *(
        (f"{name}.seed", value)
        for name in ("run", "scenes", "video")
        for value in (-1, HUGE, 2**70)
    ),
    *(("sweep.seed", value) for value in (-1, 2**32)),
    *((f"model.{name}", 10**6) for name in ("channels", "refine_channels", "blocks", "heads")),
    *((f"model.spike.{name}", 10**6) for name in ("bins", "blocks", "heads", "window")),
    *((f"model.{name}", [10**6] * 3) for name in ("window",)),
    ("model.refine_blocks", 10**6),
    ("model.refine_groups", [-1, 2]),
    ("model.refine_groups", [10**6, 2]),
    ("model.deformable_groups", 10**6),
    ("model.flow_channels", [10**6] * 4),
    ("model.spike.kernel", [99, 3, 3]),
    ("model.spike.temporal_strides", [999, 1, 1]),
    *((f"{name}.mlp_ratio", v) for name in ("model", "model.spike") for v in (math.inf, 1e9)),
    *((f"loss.{name}", math.inf) for name in ("charbonnier", "l1", "l2", "ssim", "vgg", "lpips")),
    ("loss.l1", math.nan),
    ("loss.charbonnier_eps", 1e30),
    *((f"train.{name}", v) for name in ("lr", "weight_decay", "min_lr") for v in (math.inf, -1)),
    *((f"train.{name}_timeout_s", v) for name in ("hang", "start", "storage") for v in (1e300, -1)),
    ("train.clip_norm", math.inf),
    ("train.flow_lr_scale", math.inf),
    ("train.cpus_per_worker", math.inf),
    ("train.threads_per_worker", 10**9),
    ("train.steps", HUGE),
    ("train.batch", HUGE),
    ("run.max_failures", HUGE),
    ("run.cluster_cpus", math.inf),
    ("run.cluster_gpus", HUGE),
    ("data.crop", 10**6),
    ("data.frames", 10**6),
    ("data.stride", HUGE),
    ("scenes.sequences", {"train": HUGE}),
    ("scenes.sequences", {"train": -1}),
    ("scenes.height", 10**6),
    ("scenes.width", 10**6),
    ("scenes.objects", [1, HUGE]),
    ("camera.refractory_steps", HUGE),
    ("camera.rate_hz", math.inf),
    ("evaluation.tile_frames", HUGE),
    ("evaluation.overlap", HUGE),
]
NAMES = [
    *(
        "../x",
        "/etc",
        "a/../../x",
        "..",
        ".",
        "",
        ".hidden",
        "a\nb",
        "a\0b",
        "x" * 256,
        "a\x1b[31m",
    ),
]
FOLDERS = ["run.name", "data.train_split", "data.val_split", "evaluation.split"]


@pytest.fixture(scope="module")
def base() -> Config:
    return change(Config(), SECTIONS)


@pytest.mark.parametrize(("name", "value"), ODD, ids=[f"{name}={value}" for name, value in ODD])
def test_what_no_worker_survives_is_refused(base: Config, name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        change(base, {name: value})
    message = str(caught.value)
    assert "\n" not in message and name.rpartition(".")[2] in message and len(message) < 1000


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("value", NAMES)
def test_names_of_folders_stay_in_their_folder(base: Config, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a folder") as caught:
        change(base, {name: value})
    assert "\n" not in str(caught.value)
    for mapping, entry in (("scenes.sequences", 3), ("video.splits", 0.5)):
        with pytest.raises(ConfigError, match="cannot be the name of a folder"):
            change(base, {mapping: {value: entry}})


@pytest.mark.parametrize(
    "value", ["run", "demo/fused", "exp 1", "größe", "2024-05-01", "-x", "a/b/c"]
)
def test_runs_may_lie_in_folders(base: Config, value: str) -> None:
    assert change(base, {"run.name": value}).run.name == value


def test_splits_lie_in_no_folder(base: Config) -> None:
    with pytest.raises(ConfigError, match="it holds a slash"):
        change(base, {"data.train_split": "a/b"})


def numbers(section: type[BaseModel], prefix: str = "") -> list[str]:
    """List the dotted keys of all settings that are one number, or may be."""
    found = []
    for name, field in section.model_fields.items():
        kinds = {field.annotation, *get_args(field.annotation)}
        kinds |= {get_args(kind)[0] for kind in kinds if hasattr(kind, "__metadata__")}
        sections = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        found += [key for inner in sections for key in numbers(inner, f"{prefix}{name}.")]
        if kinds & {int, float}:
            found.append(prefix + name)
    return found


@pytest.mark.parametrize("key", numbers(Config))
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**30, -(10**30)])
def test_no_number_is_without_end(base: Config, key: str, value: float) -> None:
    try:
        change(base, {key: value})
    except ConfigError:
        return
    assert value == 10**30 and key in FREE


FREE = {
    *(f"camera.{name}" for name in ("threshold", "rate_hz", "noise", "dark_rate", "saturation")),
    *("train.min_lr", "train.clip_norm", "train.cpus_per_worker", "run.cluster_cpus"),
    "train.validate_every",
}
"""Settings that may be as great as one likes, but finite."""


def test_every_number_is_listed() -> None:
    found = set(numbers(Config))
    assert {"model.spike.mlp_ratio", "scenes.seed", "train.clip_norm", "sweep.trials"} <= found
    assert found <= set(known_keys()) and len(found) > 60


def test_what_ships_is_taken(repository: Any) -> None:
    for file in repository.glob("configs/**/*.yaml"):
        load_config(file)

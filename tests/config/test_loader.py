"""Configuration files: inheritance, overrides, and every way of getting one wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from vrtspike.config.config import Config
from vrtspike.config.loader import (
    change,
    dump_config,
    known_keys,
    leaves,
    load_config,
    load_saved,
    within,
)
from vrtspike.errors import ConfigError
from vrtspike.runs.folder import WorkerPlan
from vrtspike.storage.folder import Folder


def write(folder: Path, name: str, text: str) -> Path:
    """Write a configuration file and return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path, *overrides: str) -> str:
    """Return the message with which a configuration is refused."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "c.yaml", "")) == Config()


def test_dump_reads_back_equal(tmp_path: Path) -> None:
    text = "train: {lr: 1e-3, clip_norm: 0.5}\nscenes: {frames: 4}\nloss: {weights_dir: w}\n"
    config = load_config(write(tmp_path, "c.yaml", text))
    again = load_config(write(tmp_path, "again.yaml", dump_config(config)))
    assert again == config
    assert config.train.lr == 1e-3


def test_base_is_relative_to_the_file_and_merges_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, "model/small.yaml", "model: {channels: 32, heads: 2}\ntrain: {steps: 5}\n")
    write(tmp_path, "middle.yaml", "base: model/small.yaml\nmodel: {heads: 4}\n")
    path = write(tmp_path, "top.yaml", "base: middle.yaml\ntrain: {batch: 2}\n")
    config = load_config(path)
    assert (config.model.channels, config.model.heads) == (32, 4)
    assert (config.train.steps, config.train.batch) == (5, 2)


def test_overrides_win_over_files_and_are_read_as_yaml(tmp_path: Path) -> None:
    path = write(tmp_path, "c.yaml", "train: {steps: 5, batch: 4}\n")
    config = load_config(
        path,
        [
            "train.steps=7",
            "train.lr=2e-4",
            "model.window=[2, 4, 4]",
            "run.name=x",
            "data.tile=null",
            "scenes.sequences.train=3",
            "train.gpu=false",
        ],
    )
    assert (config.train.steps, config.train.batch, config.train.lr) == (7, 4, 2e-4)
    assert config.model.window == (2, 4, 4)
    assert config.run.name == "x" and config.data.tile is None and config.train.gpu is False
    assert config.scenes is not None and config.scenes.sequences == {"train": 3}


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "c.yaml", ""))
    with pytest.raises(ValidationError):
        config.train.steps = 1  # type: ignore[misc]


def test_unknown_key_in_a_file_names_file_key_and_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "c.yaml", "train: {stepz: 5}\n")
    message = refusal(path)
    assert "train.stepz" in message and str(path) in message
    assert "did you mean train.steps?" in message


def test_unknown_key_in_a_base_names_the_base(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "modle: {channels: 5}\n")
    message = refusal(write(tmp_path, "c.yaml", "base: base.yaml\n"))
    assert "base.yaml" in message and "did you mean model?" in message


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.learning_rate=1", "train."),
        ("channels=3", "model.channels"),
        ("model.spike.bin=3", "model.spike.bins"),
        ("train.steps.more=3", "train.steps"),
        ("qqqqqq=1", ""),
    ],
)
def test_unknown_override_names_the_nearest(tmp_path: Path, override: str, nearest: str) -> None:
    message = refusal(write(tmp_path, "c.yaml", ""), override)
    assert f"override {override}" in message and f"did you mean {nearest}" in message


@pytest.mark.parametrize("override", ["train.steps", "=3", "train..steps=3", ""])
def test_a_malformed_override_is_refused(tmp_path: Path, override: str) -> None:
    assert "not key=value" in refusal(write(tmp_path, "c.yaml", ""), override)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("train: {steps: many}\n", ["train.steps", "got 'many'", "expected", "integer"]),
        ("train: {steps: 0}\n", ["train.steps", "got 0", "greater than 0"]),
        ("model: {fusion: magic}\n", ["model.fusion", "'magic'", "'temporal'"]),
        ("train: 3\n", ["train", "got 3"]),
        ("train: {batch: 3, workers: 2}\n", ["train.batch 3", "train.workers 2"]),
        ("scenes: {exposure_steps: 99}\n", ["exposure_steps 99", "steps_per_frame 64", "scenes"]),
        ("video: {exposure_steps: 99}\n", ["exposure_steps 99", "steps_per_frame 64", "video"]),
    ],
)
def test_a_wrong_value_says_where_got_expected(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = write(tmp_path, "c.yaml", text)
    message = refusal(path)
    assert all(part in message for part in [str(path), *parts]), message


def test_several_problems_are_counted(tmp_path: Path) -> None:
    assert "1 more" in refusal(write(tmp_path, "c.yaml", "train: {steps: x, batch: y}\n"))


def test_missing_folder_not_yaml_not_mapping_and_cycles(tmp_path: Path) -> None:
    assert "no such configuration file" in refusal(tmp_path / "none.yaml")
    assert "got a folder" in refusal(tmp_path)
    assert "not YAML" in refusal(write(tmp_path, "bad.yaml", "train: {steps\n"))
    assert "not YAML" in refusal(write_bytes(tmp_path / "binary.yaml", b"\xff\xfe\x00\x80"))
    assert "not a mapping" in refusal(write(tmp_path, "list.yaml", "- 1\n"))
    assert "the base of" in refusal(write(tmp_path, "lost.yaml", "base: none.yaml\n"))
    assert "not the name of a file" in refusal(write(tmp_path, "number.yaml", "base: 3\n"))
    write(tmp_path, "a.yaml", "base: b.yaml\n")
    assert "each other's base" in refusal(write(tmp_path, "b.yaml", "base: a.yaml\n"))


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file that is not text."""
    path.write_bytes(content)
    return path


def test_every_setting_is_documented() -> None:
    sections: list[type] = [Config]
    for section in sections:
        for name, field in section.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                sections.append(inner)
            else:
                assert field.description, f"{section.__name__}.{name} has no docstring"


def test_known_keys_reach_into_optional_sections() -> None:
    assert {"scenes", "scenes.frames", "model.spike.bins"} <= set(known_keys())
    assert yaml.safe_load(dump_config(Config()))["scenes"] is None


def test_what_is_written_down_holds_no_keys() -> None:
    secret = "s3://me:sl/ash@bucket/runs?region=x&secret_key=abc&session_token=def"
    config = load_config(None, [f"run.root={secret}", f"data.source={secret}"])
    assert config.run.root == secret
    text = dump_config(config)
    assert "s3://bucket/runs?region=x\n" in text
    assert not any(word in text for word in ("sl/ash", "abc", "def\n", "me:sl"))
    assert "bucket" not in repr(WorkerPlan(config, Folder.at(secret), 1.0, preemptible=False))


def test_a_base_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "own.yaml", "train: {steps: 5}\nmodel: {heads: 2}\n")
    write(tmp_path, "root.yaml", "train: {batch: 4, steps: 6}\n")
    write(tmp_path, "other/other.yaml", "base: ../root.yaml\ndata: {crop: 64}\n")
    path = write(tmp_path, "top/top.yaml", "base: ../own.yaml\ntrain: {lr: 1e-3}\n")
    bare = write(tmp_path, "top/bare.yaml", "train: {lr: 1e-3}\n")
    monkeypatch.chdir(tmp_path)
    # Relative to where the command is typed, and not to the file.
    for place in ("other/other.yaml", tmp_path / "other/other.yaml"):
        for file in (path, bare):
            config = load_config(file, base=place)
            assert (config.train.steps, config.train.batch, config.train.lr) == (6, 4, 1e-3)
            assert (config.data.crop, config.model.heads) == (64, Config().model.heads)
    assert load_config(path).train.steps == 5
    with pytest.raises(ConfigError, match=r"no such configuration file.*none\.yaml, the base of"):
        load_config(path, base="none.yaml")
    with pytest.raises(ConfigError, match="each other's base"):
        load_config(path, base=path)


def test_change_replaces_settings_and_leaves_the_rest() -> None:
    base = Config()
    found = change(
        base, {"train.lr": 1e-3, "model.window": [2, 8, 8], "run.name": "x", "model.spike.bins": 4}
    )
    assert (found.train.lr, found.model.window, found.run.name) == (1e-3, (2, 8, 8), "x")
    assert found.model.spike.bins == 4
    assert base == Config()
    back = {
        "train.lr": base.train.lr,
        "model.window": base.model.window,
        "run.name": base.run.name,
        "model.spike.bins": base.model.spike.bins,
    }
    assert change(found, back) == base
    assert change(base, {}) == base


def test_change_takes_sections_mappings_and_null() -> None:
    base = change(Config(), {"scenes": {}})
    assert base.scenes is not None and change(base, {"scenes": None}).scenes is None
    found = change(base, {"scenes.sequences.train": 3, "scenes.frames": 4})
    assert found.scenes is not None and found.scenes.frames == 4
    assert found.scenes.sequences == base.scenes.sequences | {"train": 3}
    sweep = {"space": {"train.lr": {"uniform": [1, 2]}}, "search": "random", "trials": 2}
    tuned = change(base, {"sweep": sweep})
    assert change(tuned, {"train.lr": 1.5}).sweep == tuned.sweep is not None
    assert change(tuned, {"sweep": None}) == base


def test_change_keeps_the_keys_of_a_store() -> None:
    secret = "s3://me:sl/ash@bucket/runs?region=x&secret_key=abc"
    base = change(Config(), {"run.root": secret, "data.shards": "here"})
    found = change(base, {"train.lr": 1e-3})
    assert found.run.root == secret and found.data.shards == Path("here")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"train.learning_rate": 1}, ["unknown setting train.learning_rate", "did you mean train"]),
        ({"model.spike.heads.more": 1}, ["unknown setting model.spike.heads.more"]),
        ({"train.lr": "fast"}, ["train.lr", "got 'fast'", "[train.lr=fast]"]),
        ({"train.steps": 0, "run.name": "x"}, ["train.steps", "got 0", "greater than 0"]),
        ({"train.batch": 3, "train.workers": 2}, ["train.batch 3", "[these settings together]"]),
        ({"model": 3}, ["model", "got 3"]),
    ],
)
def test_change_refuses_what_does_not_fit(settings: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        change(Config(), settings)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message


def test_leaves_are_the_settings_by_their_dotted_keys() -> None:
    tree = {"a": {"b": 1, "c": {"d": [2]}}, "e": None, "f.g": {"h": 3}}
    assert leaves(tree) == {"a.b": 1, "a.c.d": [2], "e": None, "f.g.h": 3}
    found = leaves(Config().model_dump())
    assert found["model.spike.bins"] == Config().model.spike.bins and "model" not in found
    # Every setting is there, but for sections that are, and those below one that is not.
    optional = {key for key in known_keys() if within(key, ("scenes", "sweep", "model.guess"))}
    sections = {key for key in known_keys() if any(k.startswith(key + ".") for k in known_keys())}
    mappings = {"video.splits"}
    assert set(known_keys()) - optional - sections - mappings <= set(found)


def test_within_is_a_setting_itself_or_a_section_of_it() -> None:
    assert within("model.spike.bins", ["loss", "model.spike"]) and within("model", ["model"])
    assert not within("model.spikes", ["model.spike"])
    assert not within("model", ["model.spike"]) and not within("model", [])


def test_the_configuration_of_a_run_leads_to_no_other_file(tmp_path: Path) -> None:
    path = write(tmp_path, "config.yaml", dump_config(Config()))
    assert load_saved(path) == Config()
    write(tmp_path, "secret.yaml", "train: {steps: 5}\npassword: hunter2\n")
    path.write_text(f"base: secret.yaml\n{path.read_text()}")
    with pytest.raises(ConfigError, match="names another file as its base") as caught:
        load_saved(path)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="unknown setting"):
        load_saved(write(tmp_path, "c.yaml", "modle: {}"))


@pytest.mark.parametrize("name", ["demo", "tune/heads", "model/small"])
def test_a_shipped_configuration_is_found_by_name(name: str, repository: Path) -> None:
    assert load_config(name) == load_config(repository / f"configs/{name}.yaml")


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("train: {steps: 7}\n")
    assert load_config("demo").train.steps == 7


def test_a_name_that_ships_not_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean demo"):
        load_config("dmeo")


def test_a_folder_of_that_name_is_no_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert load_config("demo").run.name == "demo"
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="not a file"):
        load_config("other")

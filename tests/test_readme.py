"""What README, CONTRIBUTING and docs/ tell to type, to set, to open and to look at exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cluster.commands import REPOSITORY, check, check_name, local
from vrtspike.config.loader import known_keys
from vrtspike.errors import ConfigError

README, ARCHITECTURE = REPOSITORY / "README.md", REPOSITORY / "docs/architecture.md"
PAGES = [README, REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
TEXTS = {str(page.relative_to(REPOSITORY)): page.read_text(encoding="utf-8") for page in PAGES}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
TYPED = re.compile(
    r"^(vrtspike|ray|make|python|git|kubectl|docker|sbatch|tensorboard|for) ", re.MULTILINE
)
NAMED = re.compile(r"(vrtspike|ray|python) .+")
SETTING = re.compile(
    r"((?:run|camera|scenes|video|data|model|loss|train|evaluation|sweep)\.\w[\w.]*?)"
    r"(?:\.\*|=\S*|:)?"
)
SCRIPTS = {
    f"{name}: {text.splitlines()[0]}": text
    for name, page in TEXTS.items()
    for language, text in FENCE.findall(page)
    if language in ("", "sh", "bash") and TYPED.search(text)
}


def inline(page: str) -> list[str]:
    """Return what a page writes as code in its sentences and tables."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCE.sub("", page))]


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_what_is_to_be_typed_exists(script: str) -> None:
    check(script)


def test_the_commands_were_found() -> None:
    assert sum(check(script) for script in SCRIPTS.values()) >= 50


@pytest.mark.parametrize("name", TEXTS)
def test_commands_named_in_sentences_exist(name: str) -> None:
    for code in inline(TEXTS[name]):
        if ("--" in code and NAMED.fullmatch(code)) or code.startswith("make "):
            check(code)
        elif re.fullmatch(r"(vrtspike|ray) .+", code):
            check_name(code)


def unknown_settings(page: str) -> list[str]:
    """List settings that a page names and that no configuration has."""
    words = [word for code in inline(page) for word in code.split()]
    named = [match[1] for word in words if (match := SETTING.fullmatch(word))]
    known = set(known_keys())
    return [key for key in named if not any(f"{have}.".startswith(f"{key}.") for have in known)]


@pytest.mark.parametrize("name", TEXTS)
def test_settings_exist(name: str) -> None:
    assert not unknown_settings(TEXTS[name])


def options() -> set[str]:
    """Return all options of our commands and of `ray job submit`."""
    import typer
    from ray.scripts.scripts import cli

    from vrtspike.cli.app import app

    def below(command: Any) -> Iterator[str]:
        for parameter in command.params:
            yield from parameter.opts
        for further in getattr(command, "commands", {}).values():
            yield from below(further)

    return {*below(typer.main.get_command(app)), *below(cli.commands["job"])}


def test_options_exist() -> None:
    named = {
        word.partition("=")[0]
        for page in TEXTS.values()
        for code in inline(page)
        if code.startswith("--")
        for word in code.split()
        if word.startswith("--")
    }
    assert len(named) > 15 and not named - options()


def missing(page: str, folder: Path) -> list[str]:
    """List links of a page, and paths in its code, that lead nowhere."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page)):
        target, _, heading = link.partition("#")
        file = folder / target if target else None
        if "://" in target:
            continue
        if file is not None and not file.exists():
            broken.append(link)
        elif heading:
            text = page if file is None else file.read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            if heading not in {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}:
                broken.append(link)
    for word in (word for code in inline(page) for word in code.split()):
        path = local(word)
        if path is not None and not any(path.parent.glob(path.name)) and not path.exists():
            broken.append(word)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=TEXTS)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    assert not missing(page.read_text(encoding="utf-8"), page.parent)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("see [data](docs/dates.md)", "docs/dates.md"),
        ("see [data](docs/data.md#shard)", "docs/data.md#shard"),
        ("`configs/demos.yaml` is", "configs/demos.yaml"),
        ("`configs/tune/*.yml` are", "configs/tune/*.yml"),
    ],
)
def test_a_broken_link_is_found(page: str, said: str) -> None:
    assert missing(page, REPOSITORY) == [said]


@pytest.mark.parametrize("page", ["`train.step`", "`scenes.varied.*`", "`model.fusions=none` is"])
def test_a_wrong_setting_is_found(page: str) -> None:
    assert len(unknown_settings(page)) == 1


def test_the_readme_is_short() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 200


def test_rooms_and_files_of_the_map_exist() -> None:
    rooms = {path.parent.name for path in (REPOSITORY / "vrtspike").glob("*/__init__.py")}
    tree = set(re.findall(r"^  (\w+)/ ", TEXTS["README.md"], re.MULTILINE))
    table = set(re.findall(r"^\| `(\w+)` \|", TEXTS["docs/architecture.md"], re.MULTILINE))
    assert tree == table == rooms
    named = set(re.findall(r"\b\w+/\w+\.py\b", TEXTS["docs/architecture.md"]))
    files = {name for name in named if name.partition("/")[0] in rooms}
    assert len(files) > 50
    assert not [name for name in files if not (REPOSITORY / "vrtspike" / name).is_file()]


TRAIN = "vrtspike train --config configs/demo.yaml "


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("vrtspike trane --config configs/demo.yaml", "no command trane"),
        ("vrtspike train --confg configs/demo.yaml", "--confg"),
        ("vrtspike train", "wants .'--config"),
        ("vrtspike train --config configs/demo2.yaml", "no such file: configs/demo2.yaml"),
        (TRAIN + "train.step=3", "unknown settings .'train.step'"),
        (TRAIN + "\\\n  train.steps=many", "train.steps"),
        (f"for n in many 2; do\n  {TRAIN}train.steps=$n\ndone", "train.steps"),
        ("vrtspike validate data/clip --layout spk_go_pro", "spk_go_pro is none of"),
        ("vrtspike checkpoints runs/x runs/y", "takes no .'runs/y'"),
        ("vrtspike bench modell --config configs/demo.yaml", "no command modell"),
        ("python ray_jobs/trian.py --config configs/demo.yaml", "no such file: ray_jobs/trian.py"),
        ("python ray_jobs/train.py --config configs/demo.yaml run.nam=x", "run.nam"),
        ("python tests/soak.py --kill 20", "has no --kill"),
        ("make demos", "demos"),
        ("ray job submitt -- python ray_jobs/train.py", "no command submitt"),
        ("ray job submit --working_dir . -- make demo", "--working_dir"),
        ("ray job submit --working-dir . -- python ray_jobs/train.py --confg a.yaml", "--confg"),
        ("ray up cluster/azure.yaml", "no such file: cluster/azure.yaml"),
        ("export A=b && vrtspkie demo", "unknown command: vrtspkie"),
        ("kubectl apply -f cluster/kuberay/ray_jobs.yaml", "no such file"),
        ("sbatch cluster/slurm.sh", "no such file: cluster/slurm.sh"),
        ("srun --nodes=1 ray start --adress=x", "--adress"),
    ],
)
def test_a_mistake_is_found(mistake: str, said: str) -> None:
    with pytest.raises((AssertionError, ConfigError), match=said):
        check(mistake)


@pytest.mark.usefixtures("packaged_weights")
def test_the_python_examples_run() -> None:
    """What they take is at hand: packaged weights, frames, spikes and sharp frames."""
    rng = np.random.default_rng(0)
    blurred, sharp = rng.integers(0, 256, (2, 3, 32, 40, 3), dtype=np.uint8)
    names = {"blurred": blurred, "sharp": sharp, "spikes": rng.random((3, 64, 32, 40)) < 0.3}
    fences = [fence for page in TEXTS.values() for fence in FENCE.findall(page)]
    examples = [text for language, text in fences if language == "python"]
    assert len(examples) == 2
    for text in examples:
        exec(text, names)
    restored = names["restored"]
    assert restored.shape == blurred.shape and restored.dtype == np.uint8
    assert not np.array_equal(restored, blurred)

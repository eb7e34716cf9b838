"""Every command that the README tells to type exists, with its options, files and settings."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.cluster.commands import REPOSITORY, check
from vrtspike.errors import ConfigError

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
TYPED = re.compile(r"^(vrtspike|ray|make|python|git|kubectl|docker) ", re.MULTILINE)
SCRIPTS = [
    text for language, text in FENCES if language in ("", "sh", "bash") and TYPED.search(text)
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.splitlines()[0])
def test_what_is_to_be_typed_exists(script: str) -> None:
    check(script)


def test_the_commands_were_found() -> None:
    assert sum(check(script) for script in SCRIPTS) >= 20


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
    examples = [text for language, text in FENCES if language == "python"]
    assert len(examples) == 2
    for text in examples:
        exec(text, names)
    restored = names["restored"]
    assert restored.shape == blurred.shape and restored.dtype == np.uint8
    assert not np.array_equal(restored, blurred)

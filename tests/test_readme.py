"""Every command that the README tells to type exists, with its options, files and settings."""

from __future__ import annotations

import re

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

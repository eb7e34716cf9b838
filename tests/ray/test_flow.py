"""The flow network trained on Ray, from coarse to fine, and taken over by a fused model."""

from __future__ import annotations

from pathlib import Path

import pytest

from vrtspike.config.loader import load_config
from vrtspike.model import build_model, load_weights
from vrtspike.runs.metrics_log import read_metrics
from vrtspike.runs.paths import EXPORT
from vrtspike.storage.folder import Folder
from vrtspike.training.driver import run_training

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.ray, pytest.mark.timeout(300)]


def test_a_flow_network_is_trained_and_a_fused_model_starts_from_it(
    repository: Path, tmp_path: Path
) -> None:
    small = ("height=32", "width=32", "frames=2", "sequences={train: 3, val: 3}")
    config = load_config(
        repository / "configs" / "flow.yaml",
        [
            *(f"scenes.{setting}" for setting in small),
            f"run.root={tmp_path}",
            f"data.shards={tmp_path / 'none'}",
            "train.steps=20",
            "train.validate_every=12",
            "train.log_every=1",
        ],
    )
    run = run_training(config)
    records = read_metrics(Folder.at(run.path))
    trained = [record for record in records if record["kind"] == "train"]
    known = [[name for name, v in record["terms"].items() if v is not None] for record in trained]
    scales = ["epe_1", "epe_2", "epe_4", "epe_8"]
    assert known == [scales[3:]] * 7 + [scales[2:]] * 6 + [scales[1:]] * 4 + [scales] * 3
    validated = [record for record in records if record["kind"] == "val"]
    assert [record["step"] for record in validated] == [12, 20]
    assert validated[-1]["best_epe_guess"] == min(r["epe_guess"] for r in validated)
    fused = build_model(config.model)
    report = load_weights(fused, run.path / EXPORT)
    assert len(report.taken) == 6 * 10 + 2 and not report.unexpected
    assert all(name.startswith("vrt.spynet.") for name in report.taken)

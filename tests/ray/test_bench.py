"""The pipeline is measured in processes that start a Ray of their own."""

from __future__ import annotations

import json

import pytest

from vrtspike.bench.data import DataPlan, run_data_plan
from vrtspike.bench.generated import Sizes

pytestmark = pytest.mark.ray

SIZES = Sizes(height=48, width=64, frames=2, steps=20, crop=32, bins=6)


def test_each_case_of_the_pipeline_is_measured() -> None:
    plan = DataPlan(
        sizes=SIZES,
        repeats=1,
        sources=("folder",),
        cores=(1,),
        batches=12,
        many=(9,),
        many_sizes=SIZES,
        many_batches=12,
    )
    found = run_data_plan(plan, lambda *_: None)
    assert [(case.source, case.clips) for case in found.throughput] == [("folder", 2)]
    assert [(case.source, case.clips) for case in found.memory] == [("shards", 9)]
    frames, counts, steps = 2 * 2 * 3 * 32 * 32, 2 * 6 * 16 * 16, 6 * 4
    for case in [*found.throughput, *found.memory]:
        assert case.bytes_s == pytest.approx(case.samples_s * (frames + counts + steps))
        assert case.workers >= 1 and 0 < case.consumer_bytes < case.peak_bytes
    json.dumps(found.as_dict())

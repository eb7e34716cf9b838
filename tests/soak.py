"""Kill training at random, again and again: it must end with the weights of a run that nobody hurt.

    python tests/soak.py --kills 20 --seed 1

runs one short training on a cluster of two nodes undisturbed, and a second one in which workers,
nodes and drivers are killed, stopped or frozen at random moments. Prints a line for each, and
exits 1 unless every tensor of the final checkpoint, the random states included, and every loss is
equal bit for bit.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.ray.faults import CPUS_PER_WORKER, Driver, Nodes, last_step, nodes, records

KINDS = ("worker", "node", "driver", "term", "freeze")
HANG_SECONDS = 20


class Soak:
    """One run that is hurt again and again."""

    def __init__(self, cluster: Nodes, folder: Path, steps: int, every: int) -> None:
        self._cluster, self._folder = cluster, folder
        self._overrides: dict[str, Any] = {
            "data.source": folder / "scenes",
            "data.shards": folder / "shards",
            "model.drop_path": 0.2,
            "train.steps": steps,
            "train.checkpoint_every": every,
            "train.validate_every": 3 * every,
            "train.keep_checkpoints": 3,
            "train.log_every": 1,
            "train.cpus_per_worker": CPUS_PER_WORKER,
            "train.hang_timeout_s": HANG_SECONDS,
            "run.max_failures": 5,
        }

    def driver(self, name: str) -> Driver:
        """Start or continue a run."""
        run = self._folder / "runs" / name
        return Driver(self._cluster.address, run, self._overrides, self._folder / f"{name}.log")

    def hurt(self, driver: Driver, kind: str, dice: random.Random) -> Driver:
        """Do one thing to a run; return its driver, a new one where the old one has ended."""
        match kind:
            case "worker":
                dice.choice(self._cluster.workers()).kill()
            case "freeze":
                dice.choice(self._cluster.workers()).suspend()
            case "node":
                number = dice.choice(self._cluster.numbers)
                self._cluster.lose(number)
                self._cluster.add(max(number, *self._cluster.numbers) + 1)
            case "driver":
                driver.kill()
                return self.driver(driver.run.name)
            case "term":
                driver.process.send_signal(signal.SIGTERM)
                status = driver.end()
                assert status == 128 + signal.SIGTERM, (status, driver.said)
                return self.driver(driver.run.name)
        return driver

    def run_hurt(self, kills: int, kinds: list[str], dice: random.Random, steps: int) -> Driver:
        """Run to the end, hurting on the way at about even distances."""
        driver = self.driver("hurt")
        for number in range(1, kills + 1):
            at = max(last_step(driver.run) + 1, (steps * number) // (kills + 1))
            driver.until_step(at)
            time.sleep(dice.uniform(0, 0.5))
            before, starts = last_step(driver.run), self._starts(driver)
            if not (number - 1) % len(kinds):
                coming = dice.sample(kinds, len(kinds))
            kind = coming.pop()
            if before >= steps:
                break
            began = time.monotonic()
            driver = self.hurt(driver, kind, dice)
            resumed = self._until_started(driver, len(starts))
            driver.until_step(resumed + 1)
            seconds = time.monotonic() - began
            print(
                f"{number:3d} {kind:7s} at step {before:3d}: continued from {resumed:3d}, "
                f"{max(0, before - resumed)} steps again, training after {seconds:5.1f} s",
                flush=True,
            )
        return driver

    def _until_started(self, driver: Driver, starts: int) -> int:
        """Wait for one more start than there were; return the step that it continued from."""
        driver.until(lambda: len(self._starts(driver)) > starts)
        return self._starts(driver)[-1]

    def _starts(self, driver: Driver) -> list[int]:
        """Return the steps from which the run has started so far."""
        return [record["step"] for record in records(driver.run, "start")]


def differences(run: Path, whole: Path, steps: int) -> list[str]:
    """Return what differs between the ends of two runs."""
    found = []
    if losses(run) != losses(whole):
        found.append("losses")
    for path in sorted((whole / "checkpoints" / f"step_{steps:08d}").glob("rank_*")):
        other = run / "checkpoints" / path.parent.name / path.name
        if not other.is_file() or other.read_bytes() != path.read_bytes():
            found.append(f"{path.parent.name}/{path.name}")
    weights, expected = (load_file(path / "export/model.safetensors") for path in (run, whole))
    return found + [name for name in expected if not torch.equal(weights[name], expected[name])]


def losses(run: Path) -> list[tuple[int, float]]:
    """Return every step's loss."""
    return [(record["step"], record["loss"]) for record in records(run, "train")]


def main() -> int:
    """Run the soak; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="default: 12 a kill, and 12")
    parser.add_argument("--every", type=int, default=4, help="steps between checkpoints")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    asked = parser.parse_args()
    steps = asked.steps or 12 * (asked.kills + 1)
    folder = Path(tempfile.mkdtemp(prefix="vrtspike-soak-"))
    started = time.monotonic()
    with nodes() as cluster:
        soak = Soak(cluster, folder, steps, asked.every)
        whole = soak.driver("whole")
        assert whole.end(60 + 5 * steps) == 0, whole.said
        print(f"undisturbed: {steps} steps in {time.monotonic() - started:.0f} s", flush=True)
        hurt = soak.run_hurt(asked.kills, asked.kinds, random.Random(asked.seed), steps)
        assert hurt.end(60 + 5 * steps) == 0, hurt.said
        left = cluster.workers()
    found = differences(hurt.run, whole.run, steps)
    if len(losses(hurt.run)) != steps or left:
        found.append(f"{len(losses(hurt.run))} steps, {len(left)} workers left")
    print(f"after {asked.kills} kills: " + (", ".join(found) + " differ" if found else "equal"))
    if found:
        print(f"look into {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

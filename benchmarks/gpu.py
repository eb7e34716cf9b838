"""What the model does on a GPU: right, how fast, with how much memory. No Ray and no network.

    benchmarks/gpu.sh                    # at most 8 minutes; writes gpu.json
    benchmarks/gpu.sh --dry              # tiny sizes on a CPU, to see that it runs

    parity      outputs and gradients of a small model against the CPU's, in float32 and bfloat16
    step        a forward pass and a training step of the published size at 6x192x192, bfloat16,
                with and without torch.compile; MFU = counted operations / seconds / --tflops
    batch       greatest memory and seconds of a step by batch, until memory ends
    frame       seconds of a frame of 720p, restored in tiles
    alignment   the deformable convolution against the time that its bytes take at --bandwidth

A part that does not fit into the time left is skipped, and said to be.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from figures import Row, show
from vrtspike.config.loader import load_config
from vrtspike.config.model import ModelSettings
from vrtspike.model import build_model
from vrtspike.model.costs import Clip, measure_costs, random_clip
from vrtspike.model.deform import TAPS, DeformableAlignment
from vrtspike.model.precision import autocast
from vrtspike.restoration.tiled import restore

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
BACKWARD = 3
"""A training step computes three times what a forward pass does (without recomputation)."""


class Gpu:
    """The parts of the benchmark, and the time that is left for them."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.dry, self.tflops, self.bandwidth = given.dry, given.tflops, given.bandwidth
        self.ends = time.monotonic() + given.minutes * 60
        self.device = torch.device("cpu" if given.dry else "cuda")
        small, published = "model/small.yaml", "model/spike_vrt_deblur.yaml"
        self.small = load_config(CONFIGS / small).model
        self.full = self.small if given.dry else load_config(CONFIGS / published).model

    def parts(self) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
        """Yield the parts by name, what matters most first."""
        yield "parity", self.parity
        yield "step", self.step
        yield "frame", self.frame
        yield "batch", self.batch
        yield "alignment", self.alignment

    def parity(self) -> list[Row]:
        """Compare outputs and gradients with those of the CPU in float32."""
        clip = Clip(1, 4, 32, 32)
        expected = self._outcome(torch.device("cpu"), "float32", clip)
        rows: list[Row] = []
        for precision in ("float32", "bfloat16"):
            found = self._outcome(self.device, precision, clip)
            out, gradient = (
                float((a - b).abs().max() / b.abs().max())
                for a, b in zip(found, expected, strict=True)
            )
            rows.append({"precision": precision, "output differs": out, "gradient": gradient})
        return rows

    def _outcome(self, device: torch.device, precision: str, clip: Clip) -> tuple[Tensor, Tensor]:
        """Return the output, and all gradients in one row."""
        torch.manual_seed(0)
        model = build_model(self.small).eval()
        for parameter in model.parameters():  # zero-initialised layers would hide the others
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)
        blurred, voxels = random_clip(self.small, clip, torch.device("cpu"))
        model = model.to(device)
        given = (blurred.to(device), None if voxels is None else voxels.to(device))
        with autocast(device, precision):  # type: ignore[arg-type]
            restored = model(*given)
        (restored.float() - given[0].flip(-1)).square().mean().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return restored.detach().float().cpu(), torch.cat(gradients).float().cpu()

    def step(self) -> list[Row]:
        """Time a forward pass and a training step with and without torch.compile."""
        clip = Clip(1, 2, 32, 32) if self.dry else Clip(1, 6, 192, 192)
        costs = measure_costs(
            self.full, clip, device=self.device, precision="bfloat16", backward=False
        )
        flops = sum(part.flops for part in costs.parts)
        rows: list[Row] = []
        for compiled in (False,) if self.dry else (False, True):
            model = self._model(compiled)
            forward, step = self._times(model, self.full, clip)
            rows.append(
                {
                    "compile": compiled,
                    "clip": str(clip),
                    "forward ms": 1e3 * forward,
                    "forward MFU": flops / forward / (self.tflops * 1e12),
                    "step ms": 1e3 * step,
                    "step MFU": BACKWARD * flops / step / (self.tflops * 1e12),
                }
            )
        return rows

    def batch(self) -> list[Row]:
        """Find the greatest memory and the seconds of a step by batch."""
        rows: list[Row] = []
        model = self._model(False)
        for batch in (1,) if self.dry else (1, 2, 4, 8, 16):
            clip = Clip(batch, 2, 32, 32) if self.dry else Clip(batch, 6, 192, 192)
            if not self.dry:
                torch.cuda.reset_peak_memory_stats()
            try:
                _, step = self._times(model, self.full, clip, repeats=2)
            except torch.cuda.OutOfMemoryError:
                rows.append({"batch": batch, "step ms": None, "samples/s": None, "GB": None})
                break
            peak = None if self.dry else torch.cuda.max_memory_allocated() / 1e9
            rows.append(
                {"batch": batch, "step ms": 1e3 * step, "samples/s": batch / step, "GB": peak}
            )
        return rows

    def frame(self) -> list[Row]:
        """Time restoring 12 frames of 720p in tiles."""
        frames, height, width = (4, 64, 64) if self.dry else (12, 720, 1280)
        model = self._model(False).eval()
        rows: list[Row] = []
        for tile in (64,) if self.dry else (256, 384, 512):
            blurred, voxels = random_clip(self.full, Clip(1, frames, height, width), self.device)
            given = (blurred[0], None if voxels is None else voxels[0])

            def run(given: tuple[Any, Any] = given, tile: int = tile) -> None:
                restore(model, *given, tile=tile, overlap=tile // 8, precision="bfloat16")

            seconds = self._seconds(run, repeats=1)
            rows.append({"tile": tile, "size": f"{height}x{width}", "s a frame": seconds / frames})
        return rows

    def alignment(self) -> list[Row]:
        """Time the alignment of neighbours, and what its bytes alone would take."""
        n, channels, groups, side = (2, 32, 8, 16) if self.dry else (12, 120, 12, 192)
        aligned = DeformableAlignment(channels, groups, 10.0).to(self.device)
        feature = torch.rand(n, channels, side, side, device=self.device)
        flow = torch.randn(n, 2, side, side, device=self.device)
        for parameter in aligned.parameters():
            parameter.requires_grad_(True)

        def forward() -> Tensor:
            out: Tensor = aligned(feature, feature, feature, flow)
            return out

        forward_s = self._seconds(forward)
        both_s = self._seconds(lambda: torch.autograd.backward(forward().sum()))
        floor = feature.numel() * 4 * (TAPS + 3) / (self.bandwidth * 1e12)
        return [
            {
                "shape": tuple(feature.shape),
                "forward ms": 1e3 * forward_s,
                "forward and backward ms": 1e3 * both_s,
                "floor of forward ms": 1e3 * floor,
            }
        ]

    def _model(self, compiled: bool) -> nn.Module:
        torch.manual_seed(0)
        model = build_model(self.full).to(self.device).train()
        if compiled:
            for block in model.blocks():  # type: ignore[operator]
                block.compile()
        return model

    def _times(
        self, model: nn.Module, settings: ModelSettings, clip: Clip, repeats: int = 5
    ) -> tuple[float, float]:
        """Return the seconds of a forward pass, and of forward and backward."""
        given = random_clip(settings, clip, self.device)

        def forward() -> Tensor:
            with autocast(self.device, "bfloat16"):
                out: Tensor = model(*given)
            return out

        def step() -> None:
            torch.autograd.backward(forward().float().abs().mean())
            model.zero_grad()

        model.eval()
        with torch.no_grad():
            forward_s = self._seconds(forward, repeats)
        model.train()
        return forward_s, self._seconds(step, repeats)

    def _seconds(self, work: Callable[[], object], repeats: int = 5) -> float:
        """Return the seconds of a call, the best of some after one that warms up."""
        taken = []
        for _ in range(1 + (1 if self.dry else repeats)):
            self._wait()
            start = time.perf_counter()
            work()
            self._wait()
            taken.append(time.perf_counter() - start)
        return min(taken[1:])

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the model on a GPU.")
    parser.add_argument("--dry", action="store_true", help="tiny sizes on a CPU")
    parser.add_argument("--minutes", type=float, default=6.0, help="begin no part after these")
    parser.add_argument("--tflops", type=float, default=790.0, help="bfloat16 products of the GPU")
    parser.add_argument("--bandwidth", type=float, default=4.8, help="TB/s of the GPU's memory")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    given = parser.parse_args()
    gpu = Gpu(given)
    tables: dict[str, list[Row]] = {}
    for name, part in gpu.parts():
        if time.monotonic() > gpu.ends:
            tables[name] = [{"skipped": "no time left"}]
            continue
        try:
            tables[name] = part()
        except Exception as error:  # the others are worth having
            tables[name] = [{"failed": f"{type(error).__name__}: {error}"[:300]}]
        show({name: tables[name]}, None)
    show(tables, given.json)
    if any("failed" in row for rows in tables.values() for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

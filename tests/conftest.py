"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vrtspike.config.model import ModelSettings, SpikeBranchSettings

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data beside the checkout, or skip."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("real data: no folder ../shared beside this checkout")
    return folder


@pytest.fixture(scope="session")
def tiny() -> ModelSettings:
    """Return the settings of a model with every part, as small as parts can be."""
    return ModelSettings(
        channels=8,
        refine_channels=8,
        blocks=2,
        mutual_ratio=0.5,
        refine_blocks=2,
        refine_groups=(1, 1),
        heads=2,
        window=(2, 4, 4),
        mlp_ratio=1.0,
        drop_path=0.0,
        deformable_groups=2,
        flow_channels=(8, 8, 8, 8),
        spike=SpikeBranchSettings(bins=4, heads=2, blocks=1),
    )


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of weights such as the packaged ones, of models that change what they see."""
    import torch

    from vrtspike.config.loader import change, load_config
    from vrtspike.model import build_model
    from vrtspike.runs.export import export_metadata, write_export
    from vrtspike.storage.folder import Folder

    folder, torch_state = tmp_path_factory.mktemp("weights"), torch.get_rng_state()
    torch.manual_seed(0)
    small = load_config(REPOSITORY / "configs/model/small.yaml")
    for name, fusion in (("small", "temporal"), ("small-no-spike", "none")):
        config = change(small, {"model.fusion": fusion})
        weights = {
            key: value + 0.01 * torch.randn_like(value) if value.is_floating_point() else value
            for key, value in build_model(config.model).state_dict().items()
        }
        metadata = export_metadata(config, step=7)
        write_export(Folder.at(folder), f"{name}.safetensors", weights, metadata)
    flow = {name: value for name, value in weights.items() if name.startswith("spynet.")}
    metadata = export_metadata(change(small, {"train.task": "flow"}), step=7)
    write_export(Folder.at(folder), "flow.safetensors", flow, metadata)
    torch.set_rng_state(torch_state)
    return folder


@pytest.fixture
def packaged_weights(stand_ins: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the stand-ins be what ships with the package; return their folder."""
    monkeypatch.setattr("vrtspike.weights.FOLDER", stand_ins)
    return stand_ins


@pytest.fixture(scope="session")
def moving_photograph() -> Callable[..., Path]:
    """Return a function that writes a dataset folder of a photograph that moves."""
    return write_moving_photograph


def write_moving_photograph(
    root: Path,
    sequences: dict[str, int],
    *,
    split: str = "held_out",
    size: tuple[int, int] = (40, 48),
    pixels_a_frame: int = 8,
    threshold: float = 2.0,
) -> Path:
    """Write sequences {name: frames} of 64 steps a frame, 56 of them exposed; return the root."""
    import numpy as np
    from PIL import Image
    from skimage import data

    from vrtspike.datasets.info import DatasetInfo, write_info
    from vrtspike.spikes.packed_writer import write_dat

    steps, exposure, (height, width) = 64, 56, size
    photograph = data.astronaut()
    for number, (sequence, frames) in enumerate(sequences.items()):
        folder = root / split / sequence
        for kind in ("blurred", "sharp", "spike"):
            (folder / kind).mkdir(parents=True)
        charge = np.random.default_rng(number).uniform(0, threshold, size)
        for frame in range(frames):
            at = [
                (frame * steps + step) * pixels_a_frame // steps + 20 + 60 * number
                for step in range(steps + 1)
            ]
            views = np.stack([photograph[60 : 60 + height, x : x + width] for x in at])
            spikes = np.zeros((steps, *size), bool)
            for step, gray in enumerate(views[:steps] @ (0.299, 0.587, 0.114) / 255):
                charge += gray
                spikes[step] = charge >= threshold
                charge[spikes[step]] -= threshold
            blurred = views[:exposure].mean(axis=0).round().astype(np.uint8)
            Image.fromarray(blurred).save(folder / "blurred" / f"{frame:06d}.png")
            Image.fromarray(views[exposure // 2]).save(folder / "sharp" / f"{frame:06d}.png")
            write_dat(folder / "spike" / f"{frame:06d}.dat", spikes)
    info = DatasetInfo.model_validate(
        {
            "spike": {"height": height, "width": width, "rate_hz": 1000, "threshold": threshold},
            "frame": {"height": height, "width": width},
            "steps_per_frame": steps,
            "exposure": (0, exposure),
            "target_step": exposure // 2,
            "source": "a test: one photograph, moved",
        }
    )
    write_info(root / "dataset.yaml", info)
    return root


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """Serve a real S3 API on a free port of this machine; return the pattern of a folder's URI."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    from pyarrow import fs

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    store, _ = fs.FileSystem.from_uri(f"s3://key:secret@?{options}&allow_bucket_creation=true")
    store.create_dir("clips")
    yield f"s3://key:secret@clips/{{}}?{options}"
    server.stop()


@pytest.fixture(scope="session")
def upload(bucket: str) -> Callable[[Path, str], str]:
    """Return a function that copies a folder into the bucket, and gives its URI there."""
    from vrtspike.storage.folder import Folder

    def copy(folder: Path, name: str) -> str:
        uri = bucket.format(name)
        for path in folder.rglob("*"):
            if path.is_file():
                Folder.at(uri).write(path.relative_to(folder).as_posix(), path.read_bytes())
        return uri

    return copy

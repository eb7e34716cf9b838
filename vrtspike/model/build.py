"""From settings to a model."""

from __future__ import annotations

from torch import nn

from vrtspike.errors import ConfigError
from vrtspike.model.spike_vrt import SpikeVRT
from vrtspike.model.vrt import VRT
from vrtspike.settings import ModelSettings


def build_model(settings: ModelSettings) -> nn.Module:
    """Build the model that the settings describe: forward(blurred, voxels=None) -> restored."""
    for name, width, divisor in (
        ("heads", settings.channels, settings.heads),
        ("heads", settings.refine_channels, settings.heads),
        ("deformable_groups", settings.channels, settings.deformable_groups),
    ):
        if width % divisor:
            raise ConfigError(
                f"model.{name} does not divide the width that it splits",
                got=f"width {width}, {name} {divisor}",
                expected="a divisor of the width",
                fix=f"change model.{name}, model.channels or model.refine_channels",
            )
    vrt = VRT(
        channels=settings.channels,
        refine_channels=settings.refine_channels,
        blocks=settings.blocks,
        mutual_ratio=settings.mutual_ratio,
        refine_blocks=settings.refine_blocks,
        refine_groups=settings.refine_groups,
        heads=settings.heads,
        window=settings.window,
        mlp_ratio=settings.mlp_ratio,
        drop_path=settings.drop_path,
        deformable_groups=settings.deformable_groups,
        flow_channels=settings.flow_channels,
        zero_init_output=settings.zero_init_output,
        zero_init_flow=settings.zero_init_flow,
        checkpoint_attention=settings.checkpoint_attention,
        checkpoint_mlp=settings.checkpoint_mlp,
    )
    spike = settings.spike
    match settings.fusion:
        case "none":
            return vrt
        case "temporal":
            return SpikeVRT(
                vrt,
                bins=spike.bins,
                heads=spike.heads,
                mlp_ratio=spike.mlp_ratio,
                blocks=spike.blocks,
                kernel=spike.kernel,
                temporal_bias=spike.temporal_bias,
                zero_init_fusion=spike.zero_init_fusion,
                max_tokens=spike.max_tokens,
            )

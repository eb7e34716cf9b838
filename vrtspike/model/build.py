"""Build the model that the settings describe."""

from __future__ import annotations

from torch import nn

from vrtspike.config.model import ModelSettings
from vrtspike.errors import ConfigError
from vrtspike.model.chunks import Chunks
from vrtspike.model.early_fusion import EarlyFusionVRT
from vrtspike.model.fusion import ConcatFusion, CrossAttentionFusion, SpikeWindowAttention
from vrtspike.model.guess import FirstGuess, GuessAlone
from vrtspike.model.guided_vrt import GuidedVRT
from vrtspike.model.spike_encoder import SCALES, SpikeEncoder3D
from vrtspike.model.spike_vrt import SpikeVRT
from vrtspike.model.temporal import SpikeTemporalAttention, TemporalAttention
from vrtspike.model.vrt import VRT


def build_model(settings: ModelSettings) -> nn.Module:
    """Build the model; its forward takes `(blurred, voxels=None)` and returns restored frames.

    Frames are `(b, t, 3, h, w)` in [0, 1], voxels `(b, s, k, hs, ws)`. Raise ConfigError if a width
    does not divide evenly into heads or groups.
    """
    if settings.guess is None:
        return _transformer(settings)
    guess = FirstGuess(
        0 if settings.fusion == "none" else settings.spike.channels,
        channels=settings.guess.channels,
        blocks=settings.guess.blocks,
    )
    if not settings.trunk:
        return GuessAlone(guess)
    return GuidedVRT(
        guess,
        _transformer(settings),
        channels=settings.channels,
        flow_from=settings.flow_from,
    )


def _transformer(settings: ModelSettings) -> VRT | SpikeVRT | EarlyFusionVRT:
    """Build VRT, with a spike branch if `settings.fusion` asks for one."""
    _check_widths(settings)
    spike = settings.spike
    match settings.fusion:
        case "none":
            return _vrt(settings)
        case "early":
            vrt = _vrt(settings, in_chans=4)
            return EarlyFusionVRT(
                vrt, spike_channels=spike.channels, zero_init=spike.zero_init_fusion
            )
        case "concat":
            vrt, encoder = _vrt(settings), _encoder(settings)
            concat = [
                ConcatFusion(settings.channels, zero_init=spike.zero_init_fusion)
                for _ in range(SCALES)
            ]
            return SpikeVRT(vrt, encoder, [], concat)
        case "temporal" | "window":
            vrt, encoder = _vrt(settings), _encoder(settings)
            temporal = [_self_attention(settings) for _ in range(SCALES)]
            return SpikeVRT(
                vrt, encoder, temporal, [_cross_attention(settings) for _ in range(SCALES)]
            )


def _check_widths(settings: ModelSettings) -> None:
    """Check that channels divide evenly into heads and into deformable groups."""
    checks = [
        ("heads", settings.channels, settings.heads),
        ("heads", settings.refine_channels, settings.heads),
        ("deformable_groups", settings.channels, settings.deformable_groups),
    ]
    if settings.fusion in ("temporal", "window"):
        checks.append(("spike.heads", settings.channels, settings.spike.heads))
    for name, width, divisor in checks:
        if width % divisor:
            raise ConfigError(
                f"model.{name} does not divide the width that it splits",
                got=f"width {width}, {name} {divisor}",
                expected="a divisor of the width",
                fix=f"change model.{name}, model.channels or model.refine_channels",
            )


def _vrt(settings: ModelSettings, *, in_chans: int = 3) -> VRT:
    return VRT(
        in_chans=in_chans,
        patch=settings.patch,
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
        zero_init_output=settings.zero_init_output or settings.guess is not None,
        zero_init_flow=settings.zero_init_flow,
        checkpoint_attention=settings.checkpoint_attention,
        checkpoint_mlp=settings.checkpoint_mlp,
    )


def _encoder(settings: ModelSettings) -> SpikeEncoder3D:
    spike = settings.spike
    return SpikeEncoder3D(
        spike.channels * settings.patch**2,
        settings.channels,
        blocks=spike.blocks,
        kernel=spike.kernel,
        temporal_strides=spike.temporal_strides,
    )


def _self_attention(settings: ModelSettings) -> SpikeTemporalAttention:
    spike, channels = settings.spike, settings.channels
    return SpikeTemporalAttention(
        channels,
        TemporalAttention(channels, spike.heads, biased=spike.temporal_bias),
        spike.mlp_ratio,
        chunks=Chunks(spike.chunk_size, spike.chunk_shape, spike.max_batch_tokens),
        checkpoint_attention=settings.checkpoint_attention,
        checkpoint_mlp=settings.checkpoint_mlp,
    )


def _cross_attention(settings: ModelSettings) -> CrossAttentionFusion:
    spike, channels = settings.spike, settings.channels
    attention: TemporalAttention | SpikeWindowAttention
    if settings.fusion == "window":
        unit = spike.window
        attention = SpikeWindowAttention(channels, spike.heads, unit, biased=spike.temporal_bias)
    else:
        unit = 1
        attention = TemporalAttention(channels, spike.heads, biased=spike.temporal_bias)
    return CrossAttentionFusion(
        channels,
        attention,
        spike.mlp_ratio,
        chunks=Chunks(spike.chunk_size, spike.chunk_shape, spike.max_batch_tokens, unit),
        checkpoint_attention=settings.checkpoint_attention,
        checkpoint_mlp=settings.checkpoint_mlp,
        zero_init=spike.zero_init_fusion,
    )

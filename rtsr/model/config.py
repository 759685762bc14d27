"""Sizes and constants of the model, as one immutable value that travels with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from rtsr.timing import HOP, OVERLAP, SAMPLE_RATE

SYNTHESIS_FRAME = HOP + OVERLAP
LATENCY_SAMPLES = HOP + OVERLAP
NYQUIST = SAMPLE_RATE / 2

#: The least value of each size, which is accepted. What remembers frames for the next block
#: remembers at least one, which makes windows and kernels of two.
_LEAST: Mapping[str, float] = {
    **dict.fromkeys(("kernel", "attention_window", "level_window"), 2),
    **dict.fromkeys(("latent", "encoder_width", "flow_width", "flow_middle", "attention_heads"), 1),
    **dict.fromkeys(("decoder_width", "expansion", "gain_bands", "envelope_points"), 1),
    **dict.fromkeys(("encoder_blocks", "flow_blocks", "decoder_blocks"), 0),
    **dict.fromkeys(("level_width", "predictor_width", "predictor_other", "predictor_rank"), 0),
    **dict.fromkeys(("prior_scale", "decoder_noise"), 0.0),
}


@dataclass(frozen=True)
class ModelConfig:
    """Configuration of :class:`rtsr.model.generator.Generator`.

    Widths are channels, windows are frames of 10 ms. ``prior`` chooses where the flow starts:
    ``"bridge"`` from ``z_LR + prior_scale * noise``, ``"gaussian"`` from noise alone.

    ``decoder_noise`` is ``s_max``: in training, noise of up to this standard deviation is added to
    the decoder's latents.

    The boolean switches are for ablations. All but the last keep every weight, so that variants are
    of one size: a token that is switched off is a constant, and an input that is withheld from the
    decoder is zero. ``f_prior_token`` and ``f_target_token`` concern the networks' inputs,
    never the masks, which keep the input's own band untouched. ``decoder_hears_features`` gives
    the decoder ``E``'s features of the low-resolution input, ``decoder_hears_carriers`` the two
    carriers made of it.

    ``level_width`` is the width of the level path (:mod:`rtsr.model.level_path`), which predicts
    the levels of the missing bands from those of the input; with 0, as in older models, there is
    none. ``predictor_width`` is that of the band predictor (:mod:`rtsr.model.band_predictor`); with
    0 there is none. ``predictor_trust`` is the share of the way, above 0 to 1, that the gains of
    what is surely speech move to the levels that it predicts. ``predictor_other`` is the hidden
    width of its part for sound other than speech; with 0, as in older models, it knows the levels
    of speech alone, and ``predictor_other_trust`` the share of the way that the gains of what is
    surely no speech move to the levels of that part. ``predictor_rank`` is the rank of the band
    regression (:mod:`rtsr.model.band_regression`), which such a part may have beside it and which
    is fitted to a trained model; with 0 there is none. ``predictor_regression_share`` is its
    weight in the mean of both. ``speech_ceiling`` is where the output ends,
    in Hz, if the sound is surely speech and the end that is asked for is ``own_ceiling``, the one
    that the model is exported with; with 0, as in older models, all sound ends there. These count
    only with a band predictor.

    ``decoder_free_bins``, off in the named sizes, lets the decoder also set magnitude and phase of
    every bin. Such phases hardly change from hop to hop, which is audible as lines at multiples of
    100 Hz, whatever the pitch is.
    """

    name: str
    latent: int = 64
    encoder_width: int = 192
    encoder_blocks: int = 2
    flow_width: int = 160
    flow_middle: int = 96
    flow_blocks: int = 1
    attention_heads: int = 4
    attention_window: int = 32
    decoder_width: int = 224
    decoder_blocks: int = 3
    expansion: int = 3
    kernel: int = 7
    level_window: int = 64
    gain_bands: int = 64
    envelope_points: int = 15
    prior: str = "bridge"
    prior_scale: float = 0.3
    decoder_noise: float = 0.1
    f_prior_token: bool = True
    f_target_token: bool = True
    decoder_hears_features: bool = True
    decoder_hears_carriers: bool = True
    decoder_free_bins: bool = True
    level_width: int = 0
    level_blocks: int = 3
    level_memory: int = 64
    predictor_width: int = 0
    predictor_blocks: int = 4
    predictor_memory: int = 64
    predictor_trust: float = 0.5
    predictor_other: int = 0
    predictor_other_trust: float = 0.5
    predictor_rank: int = 0
    predictor_regression_share: float = 0.6
    own_ceiling: float = 22_050.0
    speech_ceiling: float = 0.0

    def __post_init__(self) -> None:
        if self.prior not in ("bridge", "gaussian"):
            raise ValueError(f"prior is {self.prior!r}; accepted: 'bridge', 'gaussian'")
        for name, least in _LEAST.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name):g}; it must be {least:g} or more")
        for name in ("predictor_trust", "predictor_other_trust", "predictor_regression_share"):
            if not 0.0 < (trust := getattr(self, name)) <= 1.0:
                raise ValueError(f"{name} is {trust:g}; it must be above 0 and at most 1")
        if not (self.speech_ceiling == 0.0 or self.own_ceiling <= self.speech_ceiling <= NYQUIST):
            raise ValueError(
                f"speech_ceiling is {self.speech_ceiling:g}; it must be 0 or "
                f"{self.own_ceiling:g}, which is own_ceiling, to {NYQUIST:g}"
            )
        if self.predictor_rank and not (self.predictor_width and self.predictor_other):
            raise ValueError("predictor_rank needs predictor_width and predictor_other")
        if self.flow_middle % self.attention_heads:
            raise ValueError("flow_middle must be a multiple of attention_heads")
        for part in ("level", "predictor"):
            width, *others = (
                getattr(self, f"{part}_{size}") for size in ("width", "blocks", "memory")
            )
            if width and min(others) < 1:
                raise ValueError(f"{part}_blocks and {part}_memory must be 1 or more")

    @property
    def noise_channels(self) -> int:
        """Number of standard-normal values per frame: flow start and noise carrier."""
        return self.latent + 2 * (SYNTHESIS_FRAME // 2 + 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name, as checkpoints and ONNX metadata store them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Undo :meth:`to_dict`; absent settings get their defaults.

        Raises:
            ValueError: a setting is unknown or out of range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown model settings: {', '.join(unknown)}")
        return cls(**values)


_SMALL = ModelConfig(
    name="small",
    decoder_free_bins=False,
    level_width=112,
    predictor_width=80,
    predictor_trust=0.75,
    predictor_other=160,
    speech_ceiling=23_950.0,
)
# Twice as wide everywhere but where levels are predicted, which does not profit from it, so that it
# can be initialised from a trained `small` (`rtsr.train.grow`).
_BASE = ModelConfig(
    name="base",
    encoder_width=384,
    encoder_blocks=3,
    flow_width=320,
    flow_middle=192,
    attention_heads=8,
    attention_window=48,
    decoder_width=448,
    decoder_blocks=4,
    decoder_free_bins=False,
    level_width=112,
    predictor_width=80,
    predictor_trust=0.75,
    predictor_other=160,
    speech_ceiling=23_950.0,
)
CONFIGURATIONS = {configuration.name: configuration for configuration in (_SMALL, _BASE)}


def configuration(name: str, **changes: Any) -> ModelConfig:
    """Return a named configuration, ``small`` or ``base``, with single settings changed.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in CONFIGURATIONS:
        raise ValueError(f"no configuration {name!r}; there are: {', '.join(CONFIGURATIONS)}")
    return replace(CONFIGURATIONS[name], **changes)

"""The generator: band-limited audio and state in, generated high band and next state out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rtsr.model.analysis import (
    BandPower,
    Features,
    FrameHistory,
    MaskedSpectrum,
    RunningLevel,
    SpectralEnergy,
)
from rtsr.model.band_predictor import BandPredictor, Prediction
from rtsr.model.config import ModelConfig
from rtsr.model.excitation import BINS, Excitation
from rtsr.model.flow import VelocityNet, euler, start_point
from rtsr.model.level_path import LevelPath, Levels
from rtsr.model.nrae import CarrierGains, Decoder, Encoder
from rtsr.model.streaming import State, StreamingModule, branch
from rtsr.model.synthesis import OverlapAdd, SynthesisMask


@dataclass
class Conditioning:
    """Features of one block of low-resolution input on which flow and decoder are conditioned.

    ``frames`` ``(batch, frames, 1440)``, ``level`` ``(batch, frames, 1)``, ``z`` ``(batch, frames,
    latent)``, ``hidden`` ``(batch, frames, encoder_width)``; where they are computed, ``levels`` of
    the level path and ``predicted`` ones of the band predictor, if the model has such, and
    ``spoken`` ``(batch, frames, 1)``, how far the sound counts as speech, 0 to 1.
    """

    frames: Tensor
    level: Tensor
    z: Tensor
    hidden: Tensor
    levels: Levels | None = None
    predicted: Levels | None = None
    spoken: Tensor | None = None


class Generator(StreamingModule):
    """NRAE and flow as a single pure ``step``; 48 kHz, hop 480, 600 samples of latency.

    At run-time the flow takes one Euler step per frame. ``initial_state(batch, euler_steps=8)``
    starts a stream that takes eight, at eight times the cost of the flow: its state holds the past
    at each of their times.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.history = FrameHistory()
        self.spectrum = MaskedSpectrum()
        self.energy = SpectralEnergy()
        self.level = RunningLevel(config.level_window)
        self.features = Features()
        self.encoder = Encoder(config)
        self.band_power = BandPower(config.gain_bands)
        self.level_path = LevelPath(config) if config.level_width else None
        self.band_predictor = BandPredictor(config) if config.predictor_width else None
        self.velocity = VelocityNet(config)
        self.excitation = Excitation()
        self.decoder = Decoder(config)
        self.synthesis_mask = SynthesisMask()
        self.overlap_add = OverlapAdd()

    def initial_state(self, batch: int, euler_steps: int = 1) -> State:
        """Return the state of ``batch`` streams before their first sample."""
        state = super().initial_state(batch)
        for index in range(1, euler_steps):
            state[f"velocity{index}"] = self.velocity.initial_state(batch)
        return state

    def analyse(
        self,
        audio: Tensor,
        f_prior: Tensor,
        state: State,
        with_levels: bool = True,
        with_prediction: bool = True,
    ) -> tuple[Conditioning, State]:
        """Analyse low-resolution audio.

        Args:
            audio: ``(batch, 1, samples)``.
            f_prior: where its content ends, Hz, ``(batch, frames, 1)`` here and below.
            state: see :meth:`initial_state`.
            with_levels: whether to run the level path, and with it the band predictor.
            with_prediction: whether to run the band predictor.

        Returns:
            The conditioning of flow and decoder, and the next state.
        """
        frames, level, parts, following = self._measure(audio, f_prior, state)
        features = self.features(parts, level)
        (z, hidden), following["encoder"] = self.encoder.step(
            features, f_prior, branch(state, "encoder")
        )
        conditioning = Conditioning(frames, level, z, hidden)
        if not with_levels:
            return conditioning, following
        power = self.band_power(parts)
        heard: Tensor | None = None
        if self.level_path is not None:
            (conditioning.levels, heard), following["level_path"] = self.level_path.step(
                power, level, f_prior, branch(state, "level_path")
            )
        if self.band_predictor is not None and with_prediction:
            (conditioning.predicted, conditioning.spoken), following["band_predictor"] = (
                self.band_predictor.step(
                    power, level, f_prior, heard, branch(state, "band_predictor")
                )
            )
        return conditioning, following

    def predict_levels(self, audio: Tensor, f_prior: Tensor, state: State) -> tuple[Levels, Tensor]:
        """Return the level path's prediction for low-resolution audio, and the running level.

        Raises:
            ValueError: the model has no level path.
        """
        if self.level_path is None:
            raise ValueError(f"the model {self.config.name!r} has no level path")
        _, level, parts, _ = self._measure(audio, f_prior, state)
        power = self.band_power(parts)
        (levels, _), _ = self.level_path.step(power, level, f_prior, branch(state, "level_path"))
        return levels, level

    def predict_from_bands(self, power: Tensor, f_prior: Tensor) -> Prediction:
        """Return what the band predictor says of powers of bands, from its initial state.

        Args:
            power: mean of a bin in each band ``(batch, frames, bands)``.
            f_prior: where the input ends, Hz, ``(batch, frames, 1)``.

        Raises:
            ValueError: the model has no band predictor.
        """
        if self.band_predictor is None:
            raise ValueError(f"the model {self.config.name!r} has no band predictor")
        clips = power.shape[0]
        heard: Tensor | None = None
        if self.level_path is not None and self.band_predictor.other is not None:
            with torch.no_grad():
                energy = self.band_power.energy(power)
                level, _ = self.level.step(energy, self.level.initial_state(clips))
                (_, heard), _ = self.level_path.step(
                    power, level, f_prior, self.level_path.initial_state(clips)
                )
        prediction, _ = self.band_predictor.predict(
            power, f_prior, heard, self.band_predictor.initial_state(clips)
        )
        return prediction

    def _measure(
        self, audio: Tensor, f_prior: Tensor, state: State
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        """Compute newest samples, running level, masked spectrum, and the next state."""
        frames, history = self.history.step(audio, branch(state, "history"))
        parts = self.spectrum(frames, f_prior)
        level, levels = self.level.step(self.energy(parts), branch(state, "level"))
        return frames, level, parts, {"history": history, "level": levels}

    def encode_reference(self, audio: Tensor, level: Tensor, f_target: Tensor) -> Tensor:
        """Encode full-band reference audio from its start, for training.

        ``level`` is the running level of the low-resolution version. Returns a latent ``(batch,
        frames, latent)``.
        """
        fresh = self.initial_state(audio.shape[0])
        frames, _ = self.history.step(audio, branch(fresh, "history"))
        features = self.features(self.spectrum(frames, f_target), level)
        (z, _), _ = self.encoder.step(features, f_target, branch(fresh, "encoder"))
        return z

    def gains(
        self, z: Tensor, conditioning: Conditioning, cutoffs: tuple[Tensor, Tensor], state: State
    ) -> tuple[CarrierGains, State]:
        """Decode a latent to the gains of the carriers.

        ``cutoffs`` are ``f_prior`` and ``f_target`` in Hz.
        """
        levels = [one for one in (conditioning.levels, conditioning.predicted) if one is not None]
        return self.decoder.gains(z, conditioning.hidden, cutoffs, levels, branch(state, "decoder"))

    def decode(
        self,
        z: Tensor,
        conditioning: Conditioning,
        noise: Tensor,
        cutoffs: tuple[Tensor, Tensor],
        state: State,
    ) -> tuple[Tensor, State]:
        """Synthesise the high band ``(batch, 1, samples)`` from a latent.

        ``noise`` ``(batch, frames, 602)`` is the noise carrier's spectrum, ``cutoffs`` are
        ``f_prior`` and ``f_target`` in Hz.
        """
        gains, decoder = self.gains(z, conditioning, cutoffs, state)
        high_band, overlap_add = self.synthesise(gains, conditioning, noise, cutoffs, state)
        return high_band, {"decoder": decoder, "overlap_add": overlap_add}

    def synthesise(
        self,
        gains: CarrierGains,
        conditioning: Conditioning,
        noise: Tensor,
        cutoffs: tuple[Tensor, Tensor],
        state: State,
    ) -> tuple[Tensor, State]:
        """Apply the gains to the carriers and overlap-add; arguments as of :meth:`decode`."""
        of_input = self.excitation(conditioning.frames, conditioning.level, cutoffs[0])
        # A complex bin of unit mean power has parts of variance one half.
        spectrum = noise.unflatten(2, (1, 2, BINS)) * 0.5**0.5
        mask = self._mask(conditioning, *cutoffs)
        frames = self.decoder.synthesise(gains, torch.cat([spectrum, of_input], dim=2), mask)
        return self.overlap_add.step(frames * conditioning.level, branch(state, "overlap_add"))

    def _mask(self, conditioning: Conditioning, f_prior: Tensor, f_target: Tensor) -> Tensor:
        """Return the gains of the generated band's bins ``(batch, frames, 301)``.

        Most music and effects were published at 44.1 kHz and end where that does. Recordings of
        speech have the noise floor of their microphone up to 24 kHz.
        """
        config = self.config
        if conditioning.spoken is None or not config.speech_ceiling:
            return self.synthesis_mask(f_prior, f_target)
        # Who asks for another end than the model's own gets just that.
        is_own = (f_target - config.own_ceiling).abs() < 1.0
        further = conditioning.spoken * (config.speech_ceiling - config.own_ceiling)
        return self.synthesis_mask(f_prior, f_target + further * is_own)

    def step(
        self, audio: Tensor, noise: Tensor, f_prior: Tensor, f_target: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Generate what lies above the cutoff.

        Args:
            audio: band-limited input at 48 kHz, ``(batch, 1, 480 * frames)``.
            noise: standard normal, ``(batch, config.noise_channels, frames)``.
            f_prior: where the input's content ends, Hz, ``(batch, 1, frames)``.
            f_target: where the output's content should end, Hz, ``(batch, 1, frames)``.
            state: :meth:`initial_state` or what the last call returned.

        Returns:
            The high band ``(batch, 1, 480 * frames)``, 600 samples later than the input once it
            leaves the engine's hop buffer, and the next state.
        """
        latent = self.config.latent
        # Outside, time comes last, as in any audio tensor; inside, a frame is one row.
        noise, f_prior, f_target = (x.transpose(1, 2) for x in (noise, f_prior, f_target))
        conditioning, following = self.analyse(audio, f_prior, state)
        z = start_point(self.config, conditioning.z, noise[..., :latent])
        times = [name for name in state if name.startswith("velocity")]
        z, velocities = euler(
            self.velocity,
            z,
            conditioning.z,
            conditioning.hidden,
            (f_prior, f_target),
            [branch(state, name) for name in times],
        )
        following.update(zip(times, velocities, strict=True))
        high_band, synthesis = self.decode(
            z, conditioning, noise[..., latent:], (f_prior, f_target), state
        )
        return high_band, {**following, **synthesis}


def parameter_count(module: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(parameter.numel() for parameter in module.parameters())


def seeded(config: ModelConfig, seed: int) -> Generator:
    """Return a generator whose initial weights depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Generator(config)

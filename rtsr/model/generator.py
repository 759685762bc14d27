"""The whole generator: band-limited audio in, generated high band out, state in, state out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rtsr.model.analysis import (
    Features,
    FrameHistory,
    MaskedSpectrum,
    RunningLevel,
    SpectralEnergy,
)
from rtsr.model.config import ModelConfig
from rtsr.model.excitation import BINS, Excitation
from rtsr.model.flow import VelocityNet, euler, start_point
from rtsr.model.level_path import LevelPath, Levels
from rtsr.model.nrae import Decoder, Encoder, Shape
from rtsr.model.streaming import State, StreamingModule, branch
from rtsr.model.synthesis import OverlapAdd, SynthesisMask


@dataclass
class Heard:
    """What one block of low-resolution input gives to every later part, per frame.

    ``frames`` ``(batch, frames, 1440)``, ``level`` ``(batch, frames, 1)``, ``z`` ``(batch, frames,
    latent)``, ``hidden`` ``(batch, frames, encoder_width)``; ``levels`` where they are asked for
    and the model has a level path.
    """

    frames: Tensor
    level: Tensor
    z: Tensor
    hidden: Tensor
    levels: Levels | None = None


class Generator(StreamingModule):
    """NRAE and flow as a single pure ``step``; 48 kHz, hop 480, 600 samples of latency.

    Live, the flow takes one Euler step per frame. ``initial_state(batch, euler_steps=8)`` begins a
    stream that takes eight, at eight times the cost of the flow: its state holds the past at each
    of their times.
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
        self.level_path = LevelPath(config) if config.level_width else None
        self.velocity = VelocityNet(config)
        self.excitation = Excitation()
        self.decoder = Decoder(config)
        self.synthesis_mask = SynthesisMask()
        self.overlap_add = OverlapAdd()

    def initial_state(self, batch: int, euler_steps: int = 1) -> State:
        """Return the state of ``batch`` streams that heard nothing so far."""
        state = super().initial_state(batch)
        for index in range(1, euler_steps):
            state[f"velocity{index}"] = self.velocity.initial_state(batch)
        return state

    def hear(
        self, audio: Tensor, f_prior: Tensor, state: State, with_levels: bool = True
    ) -> tuple[Heard, State]:
        """Analyse low-resolution audio ``(batch, 1, samples)`` that ends at ``f_prior`` Hz, which
        is ``(batch, frames, 1)`` here and below; the level path is asked for ``with_levels``."""
        frames, level, parts, following = self._analyse(audio, f_prior, state)
        features = self.features(parts, level)
        (z, hidden), following["encoder"] = self.encoder.step(
            features, f_prior, branch(state, "encoder")
        )
        heard = Heard(frames, level, z, hidden)
        if self.level_path is not None and with_levels:
            heard.levels, following["level_path"] = self.level_path.step(
                parts, level, f_prior, branch(state, "level_path")
            )
        return heard, following

    def expect(self, audio: Tensor, f_prior: Tensor, state: State) -> tuple[Levels, Tensor]:
        """Return what the level path alone says of low-resolution audio, and the running level.

        Raises:
            ValueError: the model has no level path.
        """
        if self.level_path is None:
            raise ValueError(f"the model {self.config.name!r} has no level path")
        _, level, parts, _ = self._analyse(audio, f_prior, state)
        levels, _ = self.level_path.step(parts, level, f_prior, branch(state, "level_path"))
        return levels, level

    def _analyse(
        self, audio: Tensor, f_prior: Tensor, state: State
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        """Newest samples, running level, masked spectrum, and the next state."""
        frames, history = self.history.step(audio, branch(state, "history"))
        parts = self.spectrum(frames, f_prior)
        level, levels = self.level.step(self.energy(parts), branch(state, "level"))
        return frames, level, parts, {"history": history, "level": levels}

    def encode_truth(self, audio: Tensor, level: Tensor, f_target: Tensor) -> Tensor:
        """Latent ``(batch, frames, latent)`` of full-band audio from its start, on the level of
        the low-resolution version: only training can know it."""
        fresh = self.initial_state(audio.shape[0])
        frames, _ = self.history.step(audio, branch(fresh, "history"))
        features = self.features(self.spectrum(frames, f_target), level)
        (z, _), _ = self.encoder.step(features, f_target, branch(fresh, "encoder"))
        return z

    def shape(
        self, z: Tensor, heard: Heard, cutoffs: tuple[Tensor, Tensor], state: State
    ) -> tuple[Shape, State]:
        """Decode a latent to the gains of the carriers; ``cutoffs`` are ``f_prior`` and
        ``f_target`` in Hz."""
        return self.decoder.shape(z, heard.hidden, cutoffs, heard.levels, branch(state, "decoder"))

    def decode(
        self, z: Tensor, heard: Heard, noise: Tensor, cutoffs: tuple[Tensor, Tensor], state: State
    ) -> tuple[Tensor, State]:
        """Synthesise the high band ``(batch, 1, samples)`` from a latent.

        ``noise`` ``(batch, frames, 602)`` is the noise carrier's spectrum, ``cutoffs`` are
        ``f_prior`` and ``f_target`` in Hz.
        """
        shape, decoder = self.shape(z, heard, cutoffs, state)
        high_band, overlap_add = self.sound(shape, heard, noise, cutoffs, state)
        return high_band, {"decoder": decoder, "overlap_add": overlap_add}

    def sound(
        self,
        shape: Shape,
        heard: Heard,
        noise: Tensor,
        cutoffs: tuple[Tensor, Tensor],
        state: State,
    ) -> tuple[Tensor, State]:
        """Give the carriers their gains and add up the frames; arguments as of :meth:`decode`."""
        harmonic, replicated = self.excitation(heard.frames, heard.level, cutoffs[0])
        # A complex bin of unit mean power has parts of variance one half.
        spectrum = noise.unflatten(2, (2, BINS)) * 0.5**0.5
        mask = self.synthesis_mask(*cutoffs)
        frames = self.decoder.sound(shape, (spectrum, harmonic, replicated), mask)
        return self.overlap_add.step(frames * heard.level, branch(state, "overlap_add"))

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
        heard, following = self.hear(audio, f_prior, state)
        z = start_point(self.config, heard.z, noise[..., :latent])
        times = [name for name in state if name.startswith("velocity")]
        z, velocities = euler(
            self.velocity,
            z,
            heard.z,
            heard.hidden,
            (f_prior, f_target),
            [branch(state, name) for name in times],
        )
        following.update(zip(times, velocities, strict=True))
        high_band, synthesis = self.decode(
            z, heard, noise[..., latent:], (f_prior, f_target), state
        )
        return high_band, {**following, **synthesis}


def parameter_count(module: nn.Module) -> int:
    """Number of trained values."""
    return sum(parameter.numel() for parameter in module.parameters())


def seeded(config: ModelConfig, seed: int) -> Generator:
    """Return a generator whose initial weights depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Generator(config)

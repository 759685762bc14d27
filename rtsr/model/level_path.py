"""The level path: predicts the level of each missing band from the levels of the input's bands.

Band levels matter most to the ear and depend on coarse things, so that a network of its own learns
them from band energies, cheaply. The decoder's gains follow its levels in proportion to its trust,
a confidence per band.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rtsr.model.analysis import below
from rtsr.model.bands import band_centres
from rtsr.model.config import ModelConfig
from rtsr.model.level_network import LevelNetwork
from rtsr.model.streaming import State, branch

#: mean power of a bin that is added before logarithms, below the noise of dithered 16 bits
LEAST_POWER = 1e-11
#: initial level of every band in training, natural logarithm of amplitude, and the output's scale
FIRST_LEVEL = -5.0
LEVEL_SCALE = 2.0
FIRST_TRUST = 1.0


class Levels(NamedTuple):
    """Predicted levels of one block.

    ``level`` ``(batch, frames, bands)`` is the natural logarithm of amplitude relative to the
    running level, ``trust`` of that shape, or one for all bands, the confidence in it, 0 to 1.
    """

    level: Tensor
    trust: Tensor


class LevelPath(LevelNetwork):
    """Network from powers of bands of the masked spectrum to the levels of all bands."""

    centres: Tensor

    def __init__(self, config: ModelConfig) -> None:
        bands = config.gain_bands
        sizes = config.level_width, config.level_blocks, config.level_memory
        super().__init__(config, sizes, 3 * bands + 1, 2 * bands)
        with torch.no_grad():
            level, trust = self.head.bias.chunk(2)
            level.fill_(FIRST_LEVEL / LEVEL_SCALE)
            trust.fill_(FIRST_TRUST)
        self.register_buffer("centres", band_centres(bands), persistent=False)

    def step(
        self, power: Tensor, level: Tensor, f_prior: Tensor, state: State
    ) -> tuple[tuple[Levels, Tensor], State]:
        """Predict the levels of one block.

        Args:
            power: of the masked spectrum, mean of a bin in each band, ``(batch, frames, bands)``.
            level: running level ``(batch, frames, 1)``.
            f_prior: where the input ends, Hz, ``(batch, frames, 1)``.
            state: see :meth:`initial_state`.

        Returns:
            The levels of all bands, including the input's, with the network's hidden values
            ``(batch, frames, level_width)``, and the next state.
        """
        with torch.autocast(power.device.type, enabled=False):
            energy = (power + LEAST_POWER).log()
            least, minimum = self.minimum.step(energy, branch(state, "minimum"))
            loudness = 2.0 * level.log()
            is_input = below(f_prior, self.centres)
            relative = torch.cat([energy, least], dim=2) - loudness
            relative = (0.15 * relative + 0.8) * torch.cat([is_input, is_input], dim=2)
            # The mask of the input's bands also tells where the input ends.
            features = torch.cat([relative, is_input, 0.1 * loudness + 1.0], dim=2)
        (values, straight, hidden), blocks = self.through(features, state)
        predicted, trust = values.chunk(2, dim=2)
        following: State = {"minimum": minimum, "blocks": blocks}
        levels = Levels(LEVEL_SCALE * (predicted + straight), trust.sigmoid())
        return (levels, hidden), following

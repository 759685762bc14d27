"""The band predictor: the expected level of each missing band, learnt on band energies alone.

It is a second opinion beside the decoder's gains and the level path, which are refined together
with all the rest on what is synthesised. This one never hears a synthesised sample: its training
compares energies, so that it sees many times as much sound in the same time
(:mod:`rtsr.train.band_domain`). The mean of two estimates with different errors is nearer to the
truth than either (Hansen and Salamon 1990, "Neural network ensembles"), where both are equally
good: in speech. So it also tells speech from other sound, and what is none is left to the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rtsr.model.analysis import below
from rtsr.model.bands import band_centres
from rtsr.model.config import ModelConfig
from rtsr.model.level_network import LevelNetwork
from rtsr.model.level_path import Levels
from rtsr.model.streaming import State, branch

#: by how much the gains of speech move from where they are to the predicted level
SHARE = 0.5
#: mean power of a bin that is added before logarithms; white noise of full scale has one
LEAST_POWER = 1e-10
#: initial level of every band in training relative to the input's, and the output's scale, in
#: natural logarithms of power
FIRST_LEVEL = -4.6
LEVEL_SCALE = 4.6


class BandPredictor(LevelNetwork):
    """Network from the energies of the input's bands to the levels of all bands of speech.

    Unlike the level path's, its levels are relative to the present frame's own power in the input's
    band, so that they need no running level.
    """

    centres: Tensor
    centre: Tensor

    def __init__(self, config: ModelConfig) -> None:
        bands = config.gain_bands
        sizes = config.predictor_width, config.predictor_blocks, config.predictor_memory
        super().__init__(config, sizes, 3 * bands + 1, bands + 1)
        with torch.no_grad():
            self.head.bias[:bands] = FIRST_LEVEL / LEVEL_SCALE
            self.head.bias[bands:] = 0.0
        self.register_buffer("centres", band_centres(bands), persistent=False)
        # A minimum lies below its energy: by one scale more to the same mean.
        centre = torch.tensor([1.0, 2.0]).repeat_interleave(bands)
        self.register_buffer("centre", centre, persistent=False)

    def step(
        self, power: Tensor, level: Tensor, f_prior: Tensor, state: State
    ) -> tuple[Levels, State]:
        """Predict the levels of one block.

        Args:
            power: of the masked spectrum, mean of a bin in each band, ``(batch, frames, bands)``.
            level: running level ``(batch, frames, 1)``.
            f_prior: where the input ends, Hz, ``(batch, frames, 1)``.
            state: see :meth:`initial_state`.

        Returns:
            The levels of all bands, including the input's, whose trust ``(batch, frames, 1)`` is
            the share by which the gains follow them, and the next state.
        """
        (absolute, speech), following = self.predict(power, f_prior, state)
        # Squared, so that a doubt counts for little: other sound is taken for speech by a sixth.
        return Levels(absolute - level.log(), SHARE * speech.sigmoid().square()), following

    def predict(
        self, power: Tensor, f_prior: Tensor, state: State
    ) -> tuple[tuple[Tensor, Tensor], State]:
        """Predict from the mean power of a bin in each band.

        Args:
            power: ``(batch, frames, bands)``.
            f_prior: where the input ends, Hz, ``(batch, frames, 1)``.
            state: see :meth:`initial_state`.

        Returns:
            The natural logarithm of the mean amplitude of a bin in each band, ``(batch, frames,
            bands)``, and the logit of the probability of speech, ``(batch, frames, 1)``; and the
            next state.
        """
        with torch.autocast(power.device.type, enabled=False):
            is_input = below(f_prior, self.centres)
            own = (power * is_input).mean(dim=2, keepdim=True)
            loudness = (own + LEAST_POWER).log()
            energy = (power + LEAST_POWER).log()
            least, minimum = self.minimum.step(energy, branch(state, "minimum"))
            relative = (torch.cat([energy, least], dim=2) - loudness) / LEVEL_SCALE + self.centre
            relative = relative * torch.cat([is_input, is_input], dim=2)
            # The mask of the input's bands also tells where the input ends.
            features = torch.cat([relative, is_input - 0.5, loudness / LEVEL_SCALE + 3.0], dim=2)
        values, straight, blocks = self.through(features, state)
        values, speech = values.split([self.bands, 1], dim=2)
        level = 0.5 * (LEVEL_SCALE * (values + straight) + loudness)
        return (level, speech), {"minimum": minimum, "blocks": blocks}

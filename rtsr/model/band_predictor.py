"""The band predictor: the expected level of each missing band, learnt on band energies alone.

It is a second opinion beside the decoder's gains and the level path, which are refined together
with all the rest on what is synthesised. This one never hears a synthesised sample: its training
compares energies, so that it sees many times as much sound in the same time
(:mod:`rtsr.train.band_domain`). The mean of two estimates with different errors is nearer to the
truth than either (Hansen and Salamon 1990, "Neural network ensembles"). One network for all sound
predicts speech worse than one that is trained on speech alone. So this one learns speech and says
how likely the sound is speech, and a small further part predicts the levels of other sound.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtsr.model.analysis import below
from rtsr.model.band_regression import BandRegression
from rtsr.model.bands import band_centres
from rtsr.model.config import ModelConfig
from rtsr.model.level_network import LevelNetwork
from rtsr.model.level_path import Levels
from rtsr.model.streaming import State, branch

#: mean power of a bin that is added before logarithms; white noise of full scale has one
LEAST_POWER = 1e-10
#: initial level of every band in training relative to the input's, and the output's scale, in
#: natural logarithms of power
FIRST_LEVEL = -4.6
LEVEL_SCALE = 4.6


class Prediction(NamedTuple):
    """What the band predictor says of one block.

    ``speech`` and ``other`` ``(batch, frames, bands)`` are the natural logarithm of the mean
    amplitude of a bin in each band if the sound is speech, and if it is not; the latter is ``None``
    where the model does not know. ``regression`` is what a band regression says of the latter, or
    ``None``. ``logit`` ``(batch, frames, 1)`` is that of the probability of speech.
    """

    speech: Tensor
    other: Tensor | None
    regression: Tensor | None
    logit: Tensor

    def of_other_sound(self, share: float) -> Tensor | None:
        """Return the mean of both opinions on sound other than speech.

        ``share`` is the weight of the regression, where there is one.
        """
        if self.other is None or self.regression is None:
            return self.other
        return self.other + share * (self.regression - self.other)


def log_powers(power: Tensor, is_input: Tensor) -> tuple[Tensor, Tensor]:
    """Return natural logarithms of power: of each band, and of the mean of the input's bands.

    ``power`` and ``is_input``, which is one for each band that the input has, are ``(batch, frames,
    bands)``, as is the first; the second is ``(batch, frames, 1)``.
    """
    own = (power * is_input).mean(dim=2, keepdim=True)
    return (power + LEAST_POWER).log(), (own + LEAST_POWER).log()


class OtherSound(nn.Module):
    """Layers from what both level networks have heard to the levels of sound that is no speech.

    Their inputs are detached, so that training them changes neither network: what is predicted for
    speech stays as it is.
    """

    def __init__(self, config: ModelConfig, features: int) -> None:
        super().__init__()
        heard = config.predictor_width + config.level_width + features
        self.enter = nn.Linear(heard, config.predictor_other)
        self.leave = nn.Linear(config.predictor_other, config.gain_bands)
        self.straight = nn.Linear(features, config.gain_bands)
        with torch.no_grad():
            self.leave.weight.mul_(0.3)
            self.leave.bias.fill_(FIRST_LEVEL / LEVEL_SCALE)
            self.straight.weight.mul_(0.1)
            self.straight.bias.zero_()

    def forward(self, heard: list[Tensor], features: Tensor) -> Tensor:
        """Return levels ``(batch, frames, bands)``, in the scale of the predictor's own values.

        Args:
            heard: hidden values of the band predictor and, where there is one, the level path.
            features: of the band predictor.
        """
        hidden = functional.silu(self.enter(torch.cat([*heard, features], dim=2)))
        values = self.leave(hidden).float()
        with torch.autocast(features.device.type, enabled=False):
            return values + self.straight(features)


class BandPredictor(LevelNetwork):
    """Network from the energies of the input's bands to the levels of all bands.

    Unlike the level path's, its levels are relative to the present frame's own power in the input's
    band, so that they need no running level.
    """

    centres: Tensor
    centre: Tensor

    def __init__(self, config: ModelConfig) -> None:
        bands = config.gain_bands
        sizes = config.predictor_width, config.predictor_blocks, config.predictor_memory
        features = 3 * bands + 1
        super().__init__(config, sizes, features, bands + 1)
        self.trust = config.predictor_trust
        self.other_trust = config.predictor_other_trust
        with torch.no_grad():
            self.head.bias[:bands] = FIRST_LEVEL / LEVEL_SCALE
            self.head.bias[bands:] = 0.0
        self.other = OtherSound(config, features) if config.predictor_other else None
        self.regression = BandRegression(config) if config.predictor_rank else None
        self.regression_share = config.predictor_regression_share
        self.register_buffer("centres", band_centres(bands), persistent=False)
        # A minimum lies below its energy: by one scale more to the same mean.
        centre = torch.tensor([1.0, 2.0]).repeat_interleave(bands)
        self.register_buffer("centre", centre, persistent=False)

    def step(
        self,
        power: Tensor,
        level: Tensor,
        f_prior: Tensor,
        path: Tensor | None,
        state: State,
    ) -> tuple[tuple[Levels, Tensor], State]:
        """Predict the levels of one block.

        Args:
            power: of the masked spectrum, mean of a bin in each band, ``(batch, frames, bands)``.
            level: running level ``(batch, frames, 1)``.
            f_prior: where the input ends, Hz, ``(batch, frames, 1)``.
            path: hidden values of the level path, if the model has one.
            state: see :meth:`initial_state`.

        Returns:
            The levels of all bands, including the input's, whose trust ``(batch, frames, 1)`` is
            the share by which the gains follow them, with how far the sound counts as speech
            ``(batch, frames, 1)``, 0 to 1, and the next state.
        """
        predicted, following = self.predict(power, f_prior, path, state)
        # Squared, so that a doubt counts for little: other sound is taken for speech by a sixth.
        spoken = predicted.logit.sigmoid().square()
        trust = self.trust * spoken
        absolute = predicted.speech
        other = predicted.of_other_sound(self.regression_share)
        if other is not None:
            of_other = self.other_trust * (-predicted.logit).sigmoid().square()
            speech, trust = trust, trust + of_other
            absolute = (speech * absolute + of_other * other) / trust
        return (Levels(absolute - level.log(), trust), spoken), following

    def predict(
        self,
        power: Tensor,
        f_prior: Tensor,
        path: Tensor | None,
        state: State,
    ) -> tuple[Prediction, State]:
        """Predict from the mean power of a bin in each band.

        Args:
            power: ``(batch, frames, bands)``.
            f_prior: where the input ends, Hz, ``(batch, frames, 1)``.
            path: hidden values of the level path ``(batch, frames, level_width)``, if there is one.
            state: see :meth:`initial_state`.

        Returns:
            The levels, and the next state.
        """
        with torch.autocast(power.device.type, enabled=False):
            is_input = below(f_prior, self.centres)
            energy, loudness = log_powers(power, is_input)
            least, minimum = self.minimum.step(energy, branch(state, "minimum"))
            relative = (torch.cat([energy, least], dim=2) - loudness) / LEVEL_SCALE + self.centre
            relative = relative * torch.cat([is_input, is_input], dim=2)
            # The mask of the input's bands also tells where the input ends.
            features = torch.cat([relative, is_input - 0.5, loudness / LEVEL_SCALE + 3.0], dim=2)
        (values, straight, hidden), blocks = self.through(features, state)
        values, logit = values.split([self.bands, 1], dim=2)
        speech = self._absolute(values + straight, loudness)
        other = None
        if self.other is not None:
            heard = [hidden.detach()] + ([] if path is None else [path.detach()])
            other = self._absolute(self.other(heard, features), loudness)
        following: State = {"minimum": minimum, "blocks": blocks}
        regression = None
        if self.regression is not None:
            relative, following["regression"] = self.regression.step(
                energy, loudness, is_input, branch(state, "regression")
            )
            regression = 0.5 * (relative + loudness)
        return Prediction(speech, other, regression, logit), following

    @staticmethod
    def _absolute(values: Tensor, loudness: Tensor) -> Tensor:
        return 0.5 * (LEVEL_SCALE * values + loudness)

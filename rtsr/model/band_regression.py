"""The band regression: linear, in closed form, from the bands of the input to those above it.

A second opinion on the levels of sound other than speech. A network learns of every recording what
is particular to it; a regression cannot, so that on recordings of other sources it is often nearer
to the truth, and the mean of both is nearer still. It is fitted, not trained:
:mod:`rtsr.train.band_regression`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtsr.model import single_frame
from rtsr.model.bands import band_centres
from rtsr.model.config import ModelConfig
from rtsr.model.recurrence import recur_by_doubling
from rtsr.model.streaming import State, StreamingModule, tensor

#: time constants in frames of the averages over the past
AVERAGES = (4.0, 20.0)
#: inputs that end below this, in Hz, have one map for all of them
LOWEST_END_HZ = 2500.0
#: natural logarithm of a usual power of the input
USUAL_LOUDNESS = -14.0


class BandRegression(StreamingModule):
    """Predicts levels by a linear map, one for every number of bands that the input has.

    A reduced-rank regression (Izenman 1975, "Reduced-rank regression for the multivariate linear
    model"): the maps lead to few values, and one basis, common to all maps, from these to bands.
    """

    decays: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bands, rank = config.gain_bands, config.predictor_rank
        self.bands = bands
        #: number of input bands that the first map is of
        self.fewest = int((band_centres(bands) < LOWEST_END_HZ).sum())
        self.inputs = 2 + len(AVERAGES) + bands * (1 + len(AVERAGES))
        # Parameters, as they are saved with all others, but nothing trains them.
        counts = bands - self.fewest + 1
        self.maps = nn.Parameter(torch.zeros(counts, self.inputs, rank), requires_grad=False)
        self.basis = nn.Parameter(torch.zeros(rank, bands), requires_grad=False)
        decays = 1.0 - 1.0 / torch.tensor(AVERAGES)
        self.register_buffer("decays", decays.repeat_interleave(bands + 2), persistent=False)

    def initial_state(self, batch: int) -> State:
        """Return decaying sums of the past and of its weights, zeros ``(batch, 1, channels)``."""
        return {"sums": self.zeros(batch, 1, len(AVERAGES) * (self.bands + 2))}

    def step(
        self, energy: Tensor, loudness: Tensor, is_input: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Predict levels.

        Args:
            energy: natural logarithm of the power of each band, ``(batch, frames, bands)``.
            loudness: that of the mean power of the input's bands, ``(batch, frames, 1)``.
            is_input: one for each band that the input has, ``(batch, frames, bands)``.
            state: see :meth:`initial_state`.

        Returns:
            Natural logarithms of the power of all bands relative to the loudness, ``(batch,
            frames, bands)``, of which those of the input's bands mean nothing; and the next state.
        """
        inputs, following = self.observe(energy, loudness, is_input, state)
        reduced = (inputs[:, :, None] @ self.maps[self.map_of(is_input)]).squeeze(2)
        return reduced @ self.basis, following

    def map_of(self, is_input: Tensor) -> Tensor:
        """Return the number of each frame's map, ``(batch, frames)``."""
        bands = is_input.sum(dim=2).round().long()
        return (bands - self.fewest).clamp(0, self.maps.shape[0] - 1)

    def observe(
        self, energy: Tensor, loudness: Tensor, is_input: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Return what a map is applied to, arguments as of :meth:`step`.

        Returns:
            ``(batch, frames, inputs)``: a constant, the loudness, averages of it over the past,
            then present energies and averages of them, where the input has none zero; and the next
            state.
        """
        ones = torch.ones_like(loudness)
        newest = torch.cat([energy, loudness, ones], dim=2).repeat(1, 1, len(AVERAGES))
        past = tensor(state, "sums")
        if torch.onnx.is_in_onnx_export():
            sums = single_frame.decaying_sum(newest, past, self.decays)
        else:
            first = torch.addcmul(newest[:, :1], self.decays, past)
            decays = self.decays.expand(newest[:, 1:].shape)
            sums = recur_by_doubling(torch.cat([first, newest[:, 1:]], dim=1), decays)
        averages, energies = [], [(energy - loudness) * is_input]
        for total in sums.chunk(len(AVERAGES), dim=2):
            past_energy, past_loudness, weight = total.split([self.bands, 1, 1], dim=2)
            averages.append(past_loudness / weight - loudness)
            energies.append((past_energy / weight - loudness) * is_input)
        inputs = torch.cat([ones, loudness - USUAL_LOUDNESS, *averages, *energies], dim=2)
        return inputs, {"sums": sums[:, -1:]}

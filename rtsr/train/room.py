"""Rooms: a direct sound and a decaying tail, as another place would have added it to a recording.

The tail is noise that decays exponentially (Moorer 1979, "About this reverberation business"),
faster above a few kHz, where air and walls absorb more.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rtsr.timing import SAMPLE_RATE
from rtsr.train.device import placed

#: reverberation time RT60 in seconds, from a cabin to a hall
SHORTEST, LONGEST = 0.08, 0.8
#: energy of the direct sound over that of the tail in dB, from across the room to at the mouth
FAR_DB, NEAR_DB = -2.0, 18.0
#: what is high reverberates for this share of the time
LEAST_TREBLE, MOST_TREBLE = 0.3, 0.9
#: amplitude falls by 60 dB within RT60
DECAY = math.log(10.0**3)


def draw_rooms(count: int, samples: int, rng: np.random.Generator, device: torch.device) -> Tensor:
    """Return frequency responses of random rooms, ``(count, samples / 2 + 1)``, complex.

    Args:
        count: how many.
        samples: length of the clips that they are for.
        rng: chooses the rooms; the noise in them is torch's.
        device: of the result.
    """
    bass = rng.uniform(SHORTEST, LONGEST, (count, 1))
    treble = bass * rng.uniform(LEAST_TREBLE, MOST_TREBLE, (count, 1))
    tail_db = -rng.uniform(FAR_DB, NEAR_DB, (count, 1))
    edge = rng.uniform(1500.0, 6000.0, (count, 1))
    time = torch.arange(min(samples, round(LONGEST * SAMPLE_RATE)), device=device) / SAMPLE_RATE
    frequency = torch.fft.rfftfreq(samples, 1.0 / SAMPLE_RATE, device=device)

    bass_s, treble_s, power, edge_hz = placed(
        np.stack([bass, treble, 10.0 ** (tail_db / 10.0), edge]), device
    )

    def tail(reverberation: Tensor) -> Tensor:
        decay = (-DECAY * time / reverberation).exp()
        decay = decay * (power / decay.square().sum(1, True)).sqrt()
        return torch.fft.rfft(torch.randn_like(decay) * decay, samples)

    # A high-pass of first order, which begins with the click and not before.
    share = 1j * frequency / (edge_hz + 1j * frequency)
    return 1.0 + tail(bass_s) * (1.0 - share) + tail(treble_s) * share

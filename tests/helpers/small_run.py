"""Settings and recordings of a training run that is done in seconds."""

from __future__ import annotations

import numpy as np

from rtsr.train.data import Corpus
from rtsr.train.settings import TrainSettings

SAMPLES = 48_000
TINY_CHANGES = {
    "encoder_width": 24,
    "flow_width": 16,
    "flow_middle": 8,
    "attention_heads": 2,
    "decoder_width": 24,
    "latent": 8,
    "level_width": 16,
    "level_memory": 8,
    "predictor_width": 16,
    "predictor_blocks": 1,
    "predictor_memory": 8,
    "predictor_other": 8,
}
#: Smaller still: for tests that take no account of what it learns.
SMALLEST_CHANGES = {
    **TINY_CHANGES,
    "encoder_width": 12,
    "encoder_blocks": 1,
    "flow_width": 8,
    "attention_window": 8,
    "decoder_width": 12,
    "decoder_blocks": 1,
    "latent": 6,
    "level_width": 8,
    "level_blocks": 2,
    "level_memory": 4,
    "predictor_width": 8,
}
TINY = TrainSettings(
    batch=2,
    frames=48,
    level_batch=2,
    level_frames=48,
    model_changes=TINY_CHANGES,
    warm_up_steps=2,
    adversarial_start=0.0,
)


def corpus(clips: int = 4, seconds: float = 1.5) -> Corpus:
    random = np.random.default_rng(0)
    length = int(seconds * SAMPLES)
    samples = (random.standard_normal(clips * length) * 3000).astype(np.int16)
    return Corpus(
        samples=samples,
        starts=np.arange(clips) * length,
        lengths=np.full(clips, length),
        cutoffs_hz=np.full(clips, 22_000.0, np.float32),
        domains=["unknown"],
        domain_codes=np.zeros(clips, np.int64),
        names=[f"{index}.wav" for index in range(clips)],
        groups=["unknown"] * clips,
    )

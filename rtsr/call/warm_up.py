"""A short call without a listener, so that the first real one is as fast as later ones."""

from __future__ import annotations

import numpy as np

from rtsr.batch.upsampler import BatchUpsampler
from rtsr.call.call_stream import CallStream
from rtsr.call.encoders import open_encoder
from rtsr.call.formats import G722, OPUS, PCMA, PCMU, Packet
from rtsr.call.path import MediaPath
from rtsr.call.receiver import Receiver
from rtsr.call.sender import Sender

__all__ = ["warm_up"]

_FORMATS = {0: PCMU, 8: PCMA, 9: G722, 96: OPUS}
_PACKETS = 6


def warm_up(batch: BatchUpsampler, channels: int = 1) -> None:
    """Send some packets of every codec, one of them lost, through all that a call goes through."""
    for payload_type, form in _FORMATS.items():
        sender = Sender(OPUS, 96, channels) if form is not OPUS else None
        path = MediaPath(
            Receiver(_FORMATS, channels), CallStream(batch, channels=channels), sender, _drop
        )
        encoder = open_encoder(form)
        frame = 0.01 * np.ones((encoder.frame_samples, 1), np.float32)
        ticks = encoder.frame_samples * form.clock_rate // form.sample_rate
        for number in range(_PACKETS):
            payload = encoder.encode(frame)
            if number != _PACKETS // 2:
                packet = Packet(payload_type, number, number * ticks, payload)
                path.receive(packet, 0.020 * number)
            while batch.step():
                pass
            path.advance(0.020 * number + 0.015)
        path.close()
    for back in (PCMU, G722):
        Sender(back, 0).push(np.zeros((960, 1), np.float32))


def _drop(packet: Packet) -> None:
    """Discard the packet."""

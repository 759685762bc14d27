"""The engine once more, slow and plain: hop by hop, channel by channel, in numpy and Python floats.

The compiled engine is compared with this to the bit. What has known-answer tests of its own is
taken over: the resampler, the bandwidth detector, the noise and the design of the high-pass. What
stands between them is written out here a second time: crossover, gates, gains, delay, the rule for
degraded hops, the limiter, and how a network is fed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rtsr.bandwidth.detector import BandwidthDetector
from rtsr_kernels.highpass import highpass_sos
from rtsr_kernels.noise import fill_noise
from rtsr_kernels.resample import StreamingResampler

HOP = 480
FULL_BAND_HZ = 24000.0
# Half of one step of 16 bits.
SILENT_BELOW = 0.5 / 32768.0
OPENING_SAMPLES = 64
F32 = np.float32


def high_pass(sos: np.ndarray, state: list[list[float]], samples: np.ndarray) -> np.ndarray:
    """Second-order sections in transposed direct form II; ``state`` is two numbers per section."""
    signal = [float(sample) for sample in samples]
    for (b0, b1, b2, _, a1, a2), memory in zip(sos.tolist(), state, strict=True):
        first, second = memory
        for i, value in enumerate(signal):
            result = b0 * value + first
            first = b1 * value - a1 * result + second
            second = b2 * value - a2 * result
            if abs(first) + abs(second) < 1e-30:
                first = second = 0.0
            signal[i] = result
        memory[:] = first, second
    return np.array(signal).astype(F32)


class PlainCrossover:
    """Filters the high band of one channel above the cutoff and adds it to the dry hop."""

    def __init__(self) -> None:
        self.is_first = True
        self.cutoff: float | None = None
        self.wet = 0.0
        self.is_open = False
        self.clear_filter()

    def clear_filter(self) -> None:
        self.state = [[0.0, 0.0] for _ in range(4)]

    def add(
        self, high_band: np.ndarray, dry: np.ndarray, cutoff: float | None, wet: float
    ) -> np.ndarray:
        """One hop; a ``cutoff`` of ``None`` lets nothing through."""
        if self.is_first:
            self.is_first = False
            self.cutoff, self.wet = cutoff, wet
        wet_before, self.wet = self.wet, wet
        was_open, self.is_open = self.is_open, bool(np.abs(dry).max() >= SILENT_BELOW)
        if cutoff is None and self.cutoff is None:
            return dry
        filtered = self._filter(high_band, cutoff)
        if not (was_open or self.is_open) or (wet == 0.0 and wet_before == 0.0):
            return dry
        i = np.arange(1, HOP + 1)
        if was_open and not self.is_open:
            filtered = filtered * np.linspace(1.0, 0.0, HOP + 1, dtype=F32)[1:]
        elif self.is_open and not was_open:
            filtered = filtered * np.minimum(i.astype(F32) / F32(OPENING_SAMPLES), F32(1.0))
        if wet_before != wet:
            rise = i.astype(F32) / F32(HOP)
            filtered = filtered * (F32(wet_before) + F32(wet - wet_before) * rise)
        else:
            filtered = filtered * F32(wet)
        return dry + filtered

    def _filter(self, high_band: np.ndarray, cutoff: float | None) -> np.ndarray:
        old = self._pass(high_band, self.cutoff, self.state)
        if cutoff == self.cutoff:
            return old
        fresh = [[0.0, 0.0] for _ in range(4)]
        new = self._pass(high_band, cutoff, fresh)
        self.state, self.cutoff = fresh, cutoff
        share = (np.arange(HOP) + 0.5) / HOP
        # The difference is one of float32 numbers, as in `rtsr_kernels.crossfade`.
        return (old + share * (new - old)).astype(F32)

    @staticmethod
    def _pass(block: np.ndarray, cutoff: float | None, state: list[list[float]]) -> np.ndarray:
        if cutoff is None:
            return np.zeros(HOP, F32)
        return high_pass(highpass_sos(cutoff), state, block)


class PlainNetwork:
    """A graph run with arrays, one channel after another, by ONNX Runtime and nothing of ours."""

    def __init__(self, path: Any, channels: int, seed: int, hops: int) -> None:
        import json

        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        text = self._session.get_modelmeta().custom_metadata_map["rtsr"]
        self.metadata = json.loads(text)
        self.overlap = self.metadata["overlap"]
        self.channels, self.hops, self.seed = channels, hops, seed
        self.frame = 0
        self.degraded = 0
        self._forget()

    def _forget(self) -> None:
        shapes = self.metadata["states"]
        self._states = [
            {name: np.zeros((1, *shape[1:]), F32) for name, shape in shapes.items()}
            for _ in range(self.channels)
        ]

    def generate(self, audio: np.ndarray, f_prior: np.ndarray, f_target: float) -> np.ndarray:
        noise = np.zeros((1, self.metadata["noise_channels"], self.hops), F32)
        line = np.zeros(noise.shape[1], F32)
        for hop in range(self.hops):
            fill_noise(self.seed, self.frame + hop, 0, line)
            noise[0, :, hop] = line
        self.frame += self.hops
        out = np.zeros((HOP * self.hops, self.channels), F32)
        names = [output.name for output in self._session.get_outputs()]
        for channel, state in enumerate(self._states):
            feed = {
                "audio": np.ascontiguousarray(audio[:, channel])[None, None],
                "noise": noise,
                "f_prior": f_prior[None, None].astype(F32),
                "f_target": np.full((1, 1, self.hops), f_target, F32),
                **{f"state.{name}": value for name, value in state.items()},
            }
            results = dict(zip(names, self._session.run(names, feed), strict=True))
            out[:, channel] = results["high_band"][0, 0]
            for name in state:
                state[name] = results[f"next.{name}"]
        if not np.isfinite(out).all():
            self._forget()
            self.degraded += 1
            out[:] = 0.0
        return out


class PlainEngine:
    """One stream at 48 kHz; ``cutoff``, ``wet`` and ``f_target`` may change between two steps."""

    def __init__(
        self,
        source: Any,
        *,
        native_hz: float = 24000.0,
        f_target: float = 22000.0,
        wet: float = 1.0,
        cutoff: float | None = None,
        expected_cutoff: float | None = None,
    ) -> None:
        self.source = source
        self.native_hz = native_hz
        self.f_target, self.wet = f_target, wet
        self.crossovers = [PlainCrossover() for _ in range(source.channels)]
        self.kept = np.zeros((source.overlap, source.channels), F32)
        self.set_cutoff(cutoff, expected_cutoff)

    def set_cutoff(self, cutoff: float | None, expected: float | None = None) -> None:
        self.cutoff = cutoff
        self.detector = BandwidthDetector(48000, expected, self.native_hz)

    def step(self, audio: np.ndarray) -> tuple[np.ndarray, bool]:
        """The enhanced step, and whether anything may have been added to the dry signal."""
        hops = self.source.hops
        f_prior = np.zeros(hops, F32)
        for hop in range(hops):
            part = audio[hop * HOP : (hop + 1) * HOP]
            measured = self.detector.update(part) if self.cutoff is None else self.cutoff
            f_prior[hop] = min(measured, self.native_hz)
        degraded = getattr(self.source, "degraded", 0)
        high_band = self.source.generate(np.ascontiguousarray(audio), f_prior, self.f_target)
        if getattr(self.source, "degraded", 0) != degraded:
            for crossover in self.crossovers:
                crossover.clear_filter()
        long = np.concatenate([self.kept, audio])
        out, self.kept = long[: len(audio)].copy(), long[len(audio) :]
        adds = False
        for hop in range(hops):
            part = slice(hop * HOP, (hop + 1) * HOP)
            hz: float | None = float(f_prior[hop])
            if hz >= min(FULL_BAND_HZ, self.f_target):
                hz = None
            first = self.crossovers[0]
            passes = hz is not None or (first.cutoff is not None and not first.is_first)
            gains = self.wet != 0.0 or (first.wet != 0.0 and not first.is_first)
            adds = adds or (passes and gains)
            for channel, crossover in enumerate(self.crossovers):
                out[part, channel] = crossover.add(
                    high_band[part, channel], out[part, channel], hz, self.wet
                )
        return out, adds


class PlainLimiter:
    """Sample by sample; ``count`` is how many frames were turned down."""

    def __init__(self, rate: float) -> None:
        self.gain, self.count = 1.0, 0
        self.recovery = 1.0 - math.exp(-1000.0 / (50.0 * rate))

    def process(self, block: np.ndarray, knee: float) -> np.ndarray:
        out = block.copy()
        for i, frame in enumerate(block):
            peak = float(np.abs(frame).max())
            if self.gain < 1.0:
                self.gain += self.recovery * (1.0 - self.gain)
                if self.gain > 0.9999:
                    self.gain = 1.0
            if peak > knee:
                room = 1.0 - knee
                most = 1.0 if room <= 0.0 else knee + room * math.tanh((peak - knee) / room)
                self.gain = min(self.gain, most / peak)
            if self.gain < 1.0:
                self.count += 1
                scaled = [F32(self.gain * float(value)) for value in frame]
                out[i] = np.clip(scaled, F32(-1.0), F32(1.0))
        return out


def run_plainly(
    engine: PlainEngine,
    sound: np.ndarray,
    input_rate: int = 48000,
    output_rate: int = 48000,
    limits: bool = True,
    controls: Callable[[PlainEngine, int], None] | None = None,
    tail: int = 4800,
) -> np.ndarray:
    """The whole way of a stream ``(samples, channels)``; what comes out has no wait for a step.

    Args:
        controls: called with the engine and the index of each step before it is taken.
        tail: samples of silence behind the sound, at its rate.
    """
    channels = sound.shape[1]
    padded = np.concatenate([sound, np.zeros((tail, channels), F32)])
    to_engine = StreamingResampler(input_rate, 48000, channels)
    wide = to_engine.process(padded)
    step = HOP * engine.source.hops
    late = to_engine.delay + engine.source.overlap + step
    whole = 48000 // math.gcd(48000, output_rate)
    from_engine = StreamingResampler(48000, output_rate, channels)
    limiter = PlainLimiter(output_rate)
    parts = [from_engine.process(np.zeros((-late % whole, channels), F32))]
    for index in range(len(wide) // step):
        if controls is not None:
            controls(engine, index)
        out, adds = engine.step(wide[index * step : (index + 1) * step])
        out = from_engine.process(out)
        if limits:
            out = limiter.process(out, 10.0 ** (-1.0 / 20.0) if adds else 1.0)
        parts.append(out)
    return np.concatenate(parts)

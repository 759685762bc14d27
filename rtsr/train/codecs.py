"""Speech and music coders: one recording in, the same recording as it comes out of a coder.

Coding is done by the FFmpeg libraries through PyAV, at the coder's own rate, and the result is
brought back to 48 kHz and put where the original stands, to the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from rtsr.errors import MissingDependencyError, RtsrError
from rtsr.timing import SAMPLE_RATE

#: A coder's own delay is known; what is left of it is at most this, and is measured once.
LARGEST_RESIDUE = 48
PROBE_SECONDS = 2.0


@dataclass(frozen=True)
class CodecSetting:
    """One way to code: the coder, its rate in Hz and its bit rate in kb/s (0: fixed).

    Attributes:
        encoder, decoder: their names in FFmpeg.
        sample_format: of the encoder's input, in FFmpeg's words.
        priming: samples at `rate` that the decoder puts out before the first real one and does
            not drop by itself.
        options: the encoder's own, as pairs.
    """

    name: str
    encoder: str
    decoder: str
    rate: int
    kbps: int = 0
    sample_format: str = "fltp"
    priming: int = 0
    options: tuple[tuple[str, str], ...] = ()


def _g711(law: str) -> CodecSetting:
    coder = f"pcm_{law}law"
    return CodecSetting(f"g711-{law}", coder, coder, 8000, sample_format="s16")


def _opus(rate: int, kbps: int, application: str) -> CodecSetting:
    name = f"opus-{rate // 1000}k-{kbps}"
    # libopus decodes too: FFmpeg's own decoder bursts on narrow-band speech.
    options = (("application", application),)
    return CodecSetting(name, "libopus", "libopus", rate, kbps, "flt", options=options)


def _mp3(rate: int, kbps: int) -> CodecSetting:
    return CodecSetting(f"mp3-{rate // 1000}k-{kbps}", "libmp3lame", "mp3float", rate, kbps)


def _aac(rate: int, kbps: int) -> CodecSetting:
    return CodecSetting(f"aac-{rate // 1000}k-{kbps}", "aac", "aac", rate, kbps, priming=1024)


#: Coders by family with the share of each; within a family every setting is as likely.
FAMILIES: dict[str, tuple[float, tuple[CodecSetting, ...]]] = {
    "g711": (0.2, (_g711("a"), _g711("mu"))),
    "opus": (
        0.3,
        (
            _opus(8000, 12, "voip"),
            _opus(12000, 16, "voip"),
            _opus(16000, 16, "voip"),
            _opus(16000, 24, "audio"),
            _opus(24000, 24, "voip"),
            _opus(24000, 32, "audio"),
        ),
    ),
    "mp3": (
        0.3,
        (
            _mp3(16000, 24),
            _mp3(22050, 32),
            _mp3(24000, 40),
            _mp3(32000, 48),
            _mp3(44100, 64),
            # At its usual rates this bit rate reaches 20 kHz, where nothing is left to add.
            _mp3(32000, 96),
        ),
    ),
    "aac": (0.2, (_aac(16000, 24), _aac(22050, 32), _aac(32000, 48), _aac(44100, 64))),
}


def draw_setting(rng: np.random.Generator) -> CodecSetting:
    """Draw a setting by the shares of the families."""
    families = list(FAMILIES.values())
    _, settings = families[rng.choice(len(families), p=[share for share, _ in families])]
    return settings[rng.integers(len(settings))]


def load_pyav() -> ModuleType:
    """Import PyAV; raises MissingDependencyError when it is not installed."""
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            "Preparing coded training inputs (degrade.codec_share = 0 does without)", "train"
        ) from error
    return av


def code(samples: np.ndarray, setting: CodecSetting) -> np.ndarray:
    """Code and decode one recording.

    Args:
        samples: ``(samples,)`` int16 or float32 in [-1, 1] at 48 kHz.
        setting: coder, rate and bit rate.

    Returns:
        ``(samples,)`` float32 at 48 kHz, aligned with `samples`: the coder's delay is taken out.

    Raises:
        MissingDependencyError: PyAV or soxr are not installed.
        RtsrError: this build of FFmpeg has no such coder, or it delays by an unknown time.
    """
    coded = _code(samples, setting)
    return _moved(coded, -_residue(setting), len(samples))


def lag(coded: np.ndarray, original: np.ndarray, cutoff_hz: float) -> int:
    """Return by how many samples `coded` is late (negative: early), by cross-correlation.

    Both ``(samples,)`` at 48 kHz. Only what lies below `cutoff_hz` is compared, and every
    frequency's weight is the root of its power (the smoothed coherence transform, Carter et al.
    1973, without the smoothing), so that one loud partial does not blur the peak.
    """
    size = 1 << int(np.ceil(np.log2(len(coded) + len(original))))
    spectra = [np.fft.rfft(signal.astype(np.float64), size) for signal in (coded, original)]
    frequency = np.fft.rfftfreq(size, 1.0 / SAMPLE_RATE)
    cross = spectra[0] * np.conj(spectra[1])
    cross /= np.sqrt(np.abs(cross)) + 1e-12
    cross[(frequency > cutoff_hz) | (frequency < 50.0)] = 0.0
    peak = int(np.argmax(np.fft.irfft(cross, size)))
    return peak - size if peak > size // 2 else peak


@lru_cache(maxsize=64)
def _residue(setting: CodecSetting) -> int:
    """Measure a coder's delay in samples at 48 kHz beyond its known delay, on noise."""
    random = np.random.default_rng(0)
    probe = random.standard_normal(int(PROBE_SECONDS * SAMPLE_RATE))
    spectrum = np.fft.rfft(probe)
    frequency = np.fft.rfftfreq(len(probe), 1.0 / SAMPLE_RATE)
    highest = 0.4 * setting.rate
    spectrum[(frequency < 100.0) | (frequency > highest)] = 0.0
    spectrum /= np.sqrt(np.maximum(frequency, 100.0))
    probe = np.fft.irfft(spectrum, len(probe))
    # Bursts, because a speech coder would treat steady noise as background and drop it.
    probe *= np.sin(2.0 * np.pi * 3.0 * np.arange(len(probe)) / SAMPLE_RATE) > 0.0
    probe = (0.3 * probe / np.abs(probe).max()).astype(np.float32)
    late = lag(_code(probe, setting), probe, highest)
    if abs(late) > LARGEST_RESIDUE:
        raise RtsrError(
            f"The coder {setting.name} of this FFmpeg is late by {late} samples that are not "
            f"known; up to {LARGEST_RESIDUE} can be taken out. Install another version of PyAV "
            "or set degrade.codec_share = 0."
        )
    return late


def _code(samples: np.ndarray, setting: CodecSetting) -> np.ndarray:
    """As :func:`code`, with only the known delay taken out; ``(about as many,)`` float32."""
    try:
        import soxr
    except ImportError as error:
        raise MissingDependencyError("Resampling for a coder", "train") from error
    audio = samples.astype(np.float32) / 32768.0 if samples.dtype == np.int16 else samples
    if setting.rate != SAMPLE_RATE:
        audio = soxr.resample(audio, SAMPLE_RATE, setting.rate, quality="HQ")
    decoded, rate = _through_ffmpeg(audio.clip(-1.0, 1.0), setting)
    if rate != SAMPLE_RATE:
        decoded = soxr.resample(decoded, rate, SAMPLE_RATE, quality="HQ")
    return np.asarray(_moved(decoded, 0, len(samples)), np.float32)


def _through_ffmpeg(audio: np.ndarray, setting: CodecSetting) -> tuple[np.ndarray, int]:
    """Audio at the coder's rate in, what its decoder gives and that one's rate out."""
    av = load_pyav()
    try:
        encoder = _open(av, setting.encoder, "w", setting)
        size = encoder.frame_size or 1024
        blocks = _blocks(audio, size, setting.sample_format)
        packets = []
        for index, block in enumerate(blocks):
            frame = av.AudioFrame.from_ndarray(
                block[None], format=setting.sample_format, layout="mono"
            )
            frame.sample_rate, frame.pts = setting.rate, index * size
            packets += encoder.encode(frame)
        packets += encoder.encode(None)
        decoder = _open(av, setting.decoder, "r", setting, encoder.extradata)
        frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    except (av.FFmpegError, ValueError) as error:
        raise RtsrError(
            f"The coder {setting.name} does not work in this FFmpeg ({error}); install another "
            "version of PyAV or set degrade.codec_share = 0."
        ) from error
    decoded = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    if decoded.dtype == np.int16:
        decoded = decoded / np.float32(32768.0)
    return decoded[setting.priming :].astype(np.float32), int(frames[0].sample_rate)


def _open(
    av: ModuleType, name: str, mode: str, setting: CodecSetting, header: bytes | None = None
) -> Any:
    context = av.CodecContext.create(name, mode)
    context.sample_rate, context.layout = setting.rate, "mono"
    if mode == "w":
        context.format = setting.sample_format
        if setting.kbps:
            context.bit_rate = setting.kbps * 1000
        context.options = dict(setting.options)
    elif header:
        context.extradata = header
    context.open()
    return context


def _blocks(audio: np.ndarray, size: int, sample_format: str) -> np.ndarray:
    """``(blocks, size)`` in the encoder's format, and silence enough to push the last out."""
    blocks = -(-len(audio) // size) + 4
    padded = np.zeros(blocks * size, np.float32)
    padded[: len(audio)] = audio
    if sample_format == "s16":
        padded = np.rint(padded * 32767.0).astype(np.int16)
    return padded.reshape(blocks, size)


def _moved(audio: np.ndarray, later: int, length: int) -> np.ndarray:
    """Shift `audio` by a number of samples into ``(length,)``, padded with silence."""
    moved = np.zeros(length, audio.dtype)
    begin, source = max(0, later), max(0, -later)
    count = max(0, min(length - begin, len(audio) - source))
    moved[begin : begin + count] = audio[source : source + count]
    return moved

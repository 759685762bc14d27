"""LiveKit: enhance what a participant says, with a frame processor for ``AudioStream``.

    pip install -e ".[cpu]" livekit
    python examples/livekit_processor.py call.wav enhanced.wav     your own mono recording at 8 kHz

In an agent the processor goes where noise cancellation goes; telephone callers (SIP participants)
are narrow-band there, whatever rate their frames have:

    stream = rtc.AudioStream(track, sample_rate=48000, noise_cancellation=UpsamplingProcessor())

Run as a program it does the same without a server: the recording becomes a track, and what the
stream of that track gives is written.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from pathlib import Path

import numpy as np
import soundfile
from livekit import rtc

from rtsr import Upsampler
from rtsr.errors import RtsrError
from rtsr.whole_file import check_different

# A track that has given nothing for so long gives nothing more.
SILENT_SECONDS = 2.0


class UpsamplingProcessor(rtc.FrameProcessor[rtc.AudioFrame]):
    """Adds the missing band to every frame; 12.5 ms later at 48 kHz.

    Args:
        rate, channels: of the stream's frames. The model is opened here, for that takes a second
            and frames come by the clock.
        model: as for :class:`rtsr.Upsampler`.
        cutoff: Hz where the callers' sound ends, if that is known; measured if left out.
    """

    def __init__(
        self,
        rate: int = 48000,
        channels: int = 1,
        *,
        model: str = "small",
        cutoff: float | None = None,
    ) -> None:
        self._enabled = True
        self._format = (rate, channels)
        self._upsampler: Upsampler | None = Upsampler(
            rate, channels=channels, model=model, cutoff=cutoff
        )

    @property
    def enabled(self) -> bool:
        """Whether frames are changed."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._enabled = value

    def _process(self, frame: rtc.AudioFrame) -> rtc.AudioFrame:
        if self._upsampler is None or (frame.sample_rate, frame.num_channels) != self._format:
            return frame
        samples = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels)
        wide = self._upsampler.process(samples.astype(np.float32) / 32768.0)
        data = np.clip(np.rint(wide * 32768.0), -32768, 32767).astype(np.int16)
        return rtc.AudioFrame(data.tobytes(), 48000, frame.num_channels, len(data))

    def _close(self) -> None:
        if self._upsampler is not None:
            self._upsampler.close()
            self._upsampler = None


async def through_a_track(voice: np.ndarray, processor: UpsamplingProcessor) -> np.ndarray:
    """Return what a stream with the processor gives of 8 kHz sound ``(samples,)``, at 48 kHz."""
    source = rtc.AudioSource(8000, 1)
    track = rtc.LocalAudioTrack.create_audio_track("voice", source)
    stream = rtc.AudioStream(
        track, sample_rate=8000, num_channels=1, frame_size_ms=20, noise_cancellation=processor
    )

    async def speak() -> None:
        for start in range(0, len(voice) - 159, 160):
            part = np.ascontiguousarray(voice[start : start + 160])
            await source.capture_frame(rtc.AudioFrame(part.tobytes(), 8000, 1, 160))
        await source.wait_for_playout()

    speaking = asyncio.ensure_future(speak())
    received: list[np.ndarray] = []
    # A track has no end of its own, and one that runs late leaves frames out.
    with contextlib.suppress(asyncio.TimeoutError):
        while not speaking.done() or sum(map(len, received)) < 6 * (len(voice) - 320):
            event = await asyncio.wait_for(anext(stream), SILENT_SECONDS)
            received.append(np.frombuffer(event.frame.data, np.int16).copy())
    speaking.cancel()
    await stream.aclose()
    await source.aclose()
    return np.concatenate(received)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="small")
    arguments = parser.parse_args()
    try:
        voice, rate = soundfile.read(arguments.input, dtype="int16")
        if rate != 8000 or voice.ndim != 1:
            raise RtsrError(f"'{arguments.input}' must be mono at 8000 Hz.")
        check_different(arguments.input, arguments.output)
        processor = UpsamplingProcessor(8000, model=arguments.model)
        wide = asyncio.run(through_a_track(voice, processor))
        soundfile.write(arguments.output, wide, 48000)
    except (RtsrError, soundfile.SoundFileError) as error:
        raise SystemExit(f"livekit_processor: {error}") from None
    print(f"wrote {arguments.output}, {len(wide) / 48000:.2f} s")


if __name__ == "__main__":
    main()

"""Pipecat: enhance what a caller says before anything of the pipeline hears it.

    pip install -e ".[cpu]" pipecat-ai
    python examples/pipecat_filter.py call.wav enhanced.wav     mono, 16 or 48 kHz, from a telephone

In a bot the filter goes into the transport's parameters; telephone callers are narrow-band there,
whatever rate the transport has:

    params = TransportParams(audio_in_enabled=True, audio_in_filter=UpsamplingFilter(cutoff=4000))

Run as a program it does the same without a network: the recording is the caller of a pipeline, and
what the pipeline hears is written.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.frames.frames import (
    EndFrame,
    FilterControlFrame,
    FilterEnableFrame,
    Frame,
    InputAudioRawFrame,
    StartFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

from rtsr import Upsampler
from rtsr.errors import RtsrError
from rtsr.whole_file import check_different


class UpsamplingFilter(BaseAudioFilter):
    """Adds the missing band to mono sound at the transport's own rate, 48000 or 16000 Hz.

    What comes out is 12.5 ms later at 48 kHz. A ``FilterEnableFrame`` turns the band off and on,
    faded, without a jump in time.

    Args:
        model: as for :class:`rtsr.Upsampler`.
        cutoff: Hz where the callers' sound ends, if that is known; measured if left out, which
            takes a second at 48 kHz and several at 16.
    """

    def __init__(self, *, model: str = "small", cutoff: float | None = None) -> None:
        self._model = model
        self._cutoff = cutoff
        self._upsampler: Upsampler | None = None

    async def start(self, sample_rate: int) -> None:
        """Open the model, beside the event loop: it takes a second."""
        options = {"output_rate": sample_rate, "model": self._model, "cutoff": self._cutoff}
        self._upsampler = await asyncio.to_thread(Upsampler, sample_rate, **options)

    async def stop(self) -> None:
        if self._upsampler is not None:
            self._upsampler.close()
            self._upsampler = None

    async def process_frame(self, frame: FilterControlFrame) -> None:
        if isinstance(frame, FilterEnableFrame) and self._upsampler is not None:
            self._upsampler.wet = 1.0 if frame.enable else 0.0

    async def filter(self, audio: bytes) -> bytes:
        """Return as much 16-bit sound as there is; whole hops of 10 ms come back at once."""
        if self._upsampler is None:
            return audio
        block = np.frombuffer(audio, np.int16)
        wide: np.ndarray = await asyncio.to_thread(self._upsampler.process, block)
        return wide.tobytes()


class Recording(BaseInputTransport):
    """A transport whose caller is a recording ``(samples,)`` of 16 bits."""

    def __init__(self, params: TransportParams, sound: np.ndarray) -> None:
        super().__init__(params)
        self._sound = sound
        self.ended = asyncio.Event()

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)
        self.create_task(self._speak())

    async def _speak(self) -> None:
        size = self.sample_rate // 50
        for start in range(0, len(self._sound) - size + 1, size):
            audio = self._sound[start : start + size].tobytes()
            await self.push_audio_frame(InputAudioRawFrame(audio, self.sample_rate, 1))
        await self._audio_in_queue.join()
        self.ended.set()


class Ear(FrameProcessor):
    """Keeps what the pipeline hears."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[np.ndarray] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self.parts.append(np.frombuffer(frame.audio, np.int16))
        await self.push_frame(frame, direction)


async def through_a_pipeline(sound: np.ndarray, rate: int, **options: Any) -> np.ndarray:
    """Return what a pipeline with the filter hears of mono sound ``(samples,)`` at ``rate`` Hz."""
    params = TransportParams(
        audio_in_enabled=True,
        audio_in_sample_rate=rate,
        audio_in_filter=UpsamplingFilter(**options),
    )
    transport, ear = Recording(params, sound), Ear()
    worker = PipelineWorker(Pipeline([transport, ear]), enable_rtvi=False)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)

    async def end() -> None:
        await transport.ended.wait()
        await worker.queue_frame(EndFrame())

    await asyncio.gather(runner.run(), end())
    return np.concatenate(ear.parts)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="small")
    parser.add_argument("--cutoff", type=float, help="Hz where the caller's sound ends")
    arguments = parser.parse_args()
    try:
        sound, rate = soundfile.read(arguments.input, dtype="int16")
        if rate not in (16000, 48000) or sound.ndim != 1:
            raise RtsrError(f"'{arguments.input}' must be mono at 16000 or 48000 Hz.")
        check_different(arguments.input, arguments.output)
        options = {"model": arguments.model, "cutoff": arguments.cutoff}
        wide = asyncio.run(through_a_pipeline(sound, rate, **options))
        soundfile.write(arguments.output, wide, rate)
    except (RtsrError, soundfile.SoundFileError) as error:
        raise SystemExit(f"pipecat_filter: {error}") from None
    print(f"wrote {arguments.output}, {len(wide) / rate:.2f} s")


if __name__ == "__main__":
    main()

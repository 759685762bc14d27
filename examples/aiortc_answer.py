"""An aiortc application that answers a call, and sends the caller's own sound back in full band.

    pip install -e ".[cpu,call]"
    python examples/aiortc_answer.py enhanced.wav

The caller is a second connection in the same program: it speaks the packaged voice at 8 kHz as
G.711, hears Opus, and what it hears is written. An application of your own takes `answer` and gives
it the offer that its web server got from a browser.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fractions
from importlib import resources
from pathlib import Path

import av
import numpy as np
import soundfile
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from rtsr.call.engine import CallEngine
from rtsr.call.web.track import UpsampledTrack
from rtsr.errors import RtsrError


async def answer(engine: CallEngine, offer: RTCSessionDescription) -> RTCPeerConnection:
    """Answer an offer; the connection's ``localDescription`` is what goes back to the caller.

    Raises:
        BusyError: the engine has no place free.
        ValueError: the offer has no sound.
    """
    # Without this aiortc asks a server of Google's for our address, and waits for it.
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    track: UpsampledTrack | None = None

    @peer.on("connectionstatechange")
    async def end() -> None:
        if peer.connectionState in ("failed", "closed"):
            await peer.close()
            # aiortc stops the tracks that it has begun to send, and no others.
            if track is not None:
                track.stop()

    try:
        await peer.setRemoteDescription(offer)
        # One line of sound for both ways, or one that comes as G.711 and one that goes as Opus.
        audio = [each for each in peer.getTransceivers() if each.kind == "audio"]
        if not audio:
            raise ValueError("The offer has no sound.")
        speaks, hears = audio[0], audio[-1]
        # A handler of "track" that waits for its place adds the track when the answer is made
        # already, which then says that nothing is sent.
        track = UpsampledTrack(speaks.receiver.track, await engine.open_sound(8000))
        hears.sender.replaceTrack(track)
        hears.direction = "sendrecv" if speaks is hears else "sendonly"
        await peer.setLocalDescription(await peer.createAnswer())
    except BaseException:
        await peer.close()
        raise
    return peer


class Voice(MediaStreamTrack):
    """The packaged voice at 8 kHz, in frames of 20 ms, by the clock."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        path = resources.files("rtsr").joinpath("demo_data", "speech_8k.wav")
        self.sound, _ = soundfile.read(str(path), dtype="int16")
        self._next = 0
        self._started = 0.0

    async def recv(self) -> av.AudioFrame:
        part = self.sound[self._next : self._next + 160]
        if len(part) < 160:
            raise MediaStreamError
        now = asyncio.get_running_loop().time()
        self._started = self._started or now
        await asyncio.sleep(max(0.0, self._started + self._next / 8000 - now))
        frame = av.AudioFrame.from_ndarray(part[None], format="s16", layout="mono")
        frame.sample_rate = 8000
        frame.pts, frame.time_base = self._next, fractions.Fraction(1, 8000)
        self._next += 160
        return frame


async def run(model: str) -> np.ndarray:
    """Call, speak, and return what is heard, ``(samples,)`` at 48 kHz."""
    heard = [np.zeros(0, np.int16)]
    async with CallEngine(1, model=model) as engine:
        caller, voice = RTCPeerConnection(RTCConfiguration(iceServers=[])), Voice()
        speaks = caller.addTransceiver(voice, direction="sendonly")
        hears = caller.addTransceiver("audio", direction="recvonly")
        prefer(speaks, "PCMU")
        prefer(hears, "opus")
        await caller.setLocalDescription(await caller.createOffer())
        peer = await answer(engine, caller.localDescription)
        await caller.setRemoteDescription(peer.localDescription)

        with contextlib.suppress(MediaStreamError, asyncio.TimeoutError):
            while True:
                # Nothing comes any more once the voice has ended.
                frame = await asyncio.wait_for(hears.receiver.track.recv(), 5)
                samples = frame.to_ndarray().reshape(frame.samples, -1)
                heard.append(samples[:, 0].copy())
        await caller.close()
        await peer.close()
    return np.concatenate(heard)


def prefer(transceiver: RTCRtpTransceiver, name: str) -> None:
    """Offer one codec alone."""
    codecs = RTCRtpReceiver.getCapabilities("audio").codecs
    transceiver.setCodecPreferences([each for each in codecs if each.name == name])


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="small")
    arguments = parser.parse_args()
    try:
        sound = asyncio.run(run(arguments.model))
        soundfile.write(arguments.output, sound, 48000)
    except (RtsrError, soundfile.SoundFileError) as error:
        raise SystemExit(f"aiortc_answer: {error}") from None
    print(f"wrote {arguments.output}, {len(sound) / 48000:.2f} s")


if __name__ == "__main__":
    main()

"""How long a sound takes from a browser's microphone track to its received track, by clicks.

    python tests/rtsr/call/mouth_to_ear.py                       25 clicks, G.711, no loss
    python tests/rtsr/call/mouth_to_ear.py --codec opus --clicks 50

A Chromium whose microphone plays clicks calls the page of `rtsr call web`. Both tracks run into one
AudioWorklet, so that one clock, the AudioContext's, says when a click is in each. The buffers of
the sound devices come on top; what the browser expects of them is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "helpers")]

from browser import Browser, chromium  # noqa: E402
from scipy.signal import fftconvolve  # noqa: E402
from server import TOKEN, running_server  # noqa: E402

RATE = 48000
#: Seconds between two clicks; a whole number of packets would always meet the same part of one.
PERIOD = 0.487
#: A click is a burst of 1 kHz, 5 ms long, which every codec carries.
BURST = np.hanning(240) * np.sin(2 * np.pi * 1000.0 * np.arange(240) / RATE)

WORKLET = """
class Both extends AudioWorkletProcessor {
  constructor() { super(); this.begin(); }
  begin() { this.sounds = [new Float32Array(12800), new Float32Array(12800)]; this.length = 0; }
  process(inputs) {
    inputs.forEach((input, i) => { if (input[0]) this.sounds[i].set(input[0], this.length); });
    this.length += 128;
    if (this.length === 12800) { this.port.postMessage(this.sounds); this.begin(); }
    return true;
  }
}
registerProcessor('both', Both);
"""
LISTEN = """
(async () => {
  const context = new AudioContext({ sampleRate: 48000 });
  const code = new Blob([%s], { type: 'text/javascript' });
  await context.audioWorklet.addModule(URL.createObjectURL(code));
  const both = new AudioWorkletNode(context, 'both', { numberOfInputs: 2, numberOfOutputs: 0 });
  const own = new MediaStream([made.getSenders()[0].track]);
  context.createMediaStreamSource(own).connect(both, 0, 0);
  context.createMediaStreamSource(document.getElementById('out').srcObject).connect(both, 0, 1);
  const blocks = [];
  both.port.onmessage = (event) => blocks.push(event.data);
  globalThis.both = { context, blocks };
  return JSON.stringify({ capture: own.getAudioTracks()[0].getSettings().latency,
    playback: context.outputLatency, state: context.state });
})()
"""
INBOUND = """
(async () => {
  const all = [...(await made.getStats()).values()];
  return JSON.stringify(all.find((each) => each.type === 'inbound-rtp'));
})()
"""
TAKEN = """
(() => {
  const taken = both.blocks.splice(0);
  return JSON.stringify([0, 1].map((channel) =>
    taken.flatMap((block) => Array.from(block[channel], (x) => Math.round(32767 * x)))));
})()
"""
KEEP_CONNECTION = """
globalThis.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...given) { super(...given); globalThis.made = this; }
};
"""


@dataclass(frozen=True)
class Delays:
    """What was measured.

    Attributes:
        delays_ms: of each click that was heard, in milliseconds, from track to track.
        clicks: how many were said in that time.
        parts_ms: where the bridge and the browser themselves say that time is spent.
        lost: packets that the browser missed, and those that the bridge missed.
        devices_ms: what the browser expects of its sound devices, not in ``delays_ms``.
    """

    delays_ms: np.ndarray
    clicks: int
    parts_ms: dict[str, float]
    lost: tuple[int, int]
    devices_ms: float


def clicks_at(sound: np.ndarray) -> np.ndarray:
    """Where clicks are in a sound, to the sample."""
    match = np.abs(fftconvolve(sound, BURST[::-1], "same"))
    threshold = 0.25 * np.percentile(match, 99.9)
    found, at = [], 0
    while len(above := np.flatnonzero(match[at:] > threshold)):
        start = at + int(above[0])
        found.append(start + int(np.argmax(match[start : start + RATE // 10])))
        at = start + RATE // 5
    return np.array(found)


async def measured(
    address: str, microphone: Path, codec: str, clicks: int, settling: float
) -> Delays:
    """Have a call to a running server and time its clicks, after so many seconds of settling."""
    async with Browser(microphone) as browser:
        # The worklet is not one of the scripts that the page allows itself.
        await browser.send("Page.setBypassCSP", enabled=True)
        await browser.send("Page.addScriptToEvaluateOnNewDocument", source=KEEP_CONNECTION)
        await browser.open(f"{address}/?token={TOKEN}")
        await browser.run(f"document.getElementById('codec').value = '{codec}'")
        await browser.run("document.getElementById('call').click()")
        state = "document.getElementById('state').textContent"
        await browser.until(f"{state} === 'The call is on.'")
        await browser.until(f"document.getElementById('out').currentTime > {settling}")
        devices = json.loads(await browser.run(LISTEN % json.dumps(WORKLET)))
        await asyncio.sleep(0.5)
        await browser.run("both.blocks.length = 0")
        before = json.loads(await browser.run(INBOUND))
        await asyncio.sleep(PERIOD * (clicks + 2.0))
        after = json.loads(await browser.run(INBOUND))
        now = json.loads(await browser.run("JSON.stringify(lookedAt)"))
        # Last of all: the page has much to do for this.
        sent, received = np.array(json.loads(await browser.run(TAKEN))) / 32767.0
        await browser.run("document.getElementById('call').click()")
        await browser.until(f"{state} === 'The call is over.'")
    said, heard = clicks_at(sent), clicks_at(received)
    said = said[said < len(sent) - round(0.9 * PERIOD * RATE)][:clicks]
    delays = [
        1000.0 * (next_one[0] - at) / RATE for at in said if len(next_one := heard[heard > at])
    ]
    emitted = after["jitterBufferEmittedCount"] - before["jitterBufferEmittedCount"]
    waited = after["jitterBufferDelay"] - before["jitterBufferDelay"]
    bridge = {f"bridge: {part}": ms for part, ms in now["latency_ms"].items() if part != "total"}
    return Delays(
        np.array(delays),
        len(said),
        {**bridge, "browser: jitter buffer": 1000.0 * waited / emitted},
        (after["packetsLost"], now["lost"]),
        1000.0 * (devices["capture"] + devices["playback"]),
    )


def write_clicks(path: Path) -> None:
    """Write the microphone's file: clicks, and noise as of a quiet room between them."""
    sound = 1e-3 * np.random.default_rng(0).standard_normal(round(40 * PERIOD * RATE))
    for number in range(40):
        start = round(number * PERIOD * RATE)
        sound[start : start + len(BURST)] += 0.5 * BURST
    soundfile.write(path, sound, RATE, subtype="PCM_16")


def main() -> None:
    """Read the options, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", default="PCMU", choices=["PCMU", "PCMA", "G722", "opus"])
    parser.add_argument("--clicks", type=int, default=25)
    parser.add_argument(
        "--settling",
        type=float,
        default=12.0,
        help="seconds of the call before the first click: both jitter buffers remember the stalls "
        "of its beginning for some 8 s",
    )
    parser.add_argument("--model", default="small")
    arguments = parser.parse_args()
    if chromium() is None:
        parser.exit(2, "There is no Chromium here.\n")
    with tempfile.TemporaryDirectory() as folder, running_server("--model", arguments.model) as on:
        microphone = Path(folder) / "clicks.wav"
        write_clicks(microphone)
        options = (arguments.codec, arguments.clicks, arguments.settling)
        found = asyncio.run(measured(on.address, microphone, *options))
    delays = found.delays_ms
    low, middle, high = np.percentile(delays, [5, 50, 95])
    print(f"{len(delays)} of {found.clicks} clicks heard, {arguments.codec} in, Opus out")
    print(f"track to track   median {middle:.1f} ms, 5 to 95 % {low:.1f} to {high:.1f},", end=" ")
    print(f"{delays.min():.1f} to {delays.max():.1f} ms in all")
    print("of that, by their own account (the bridge at the end, the browser in the mean)")
    for part, ms in found.parts_ms.items():
        print(f"  {part:38} {ms:6.2f} ms")
    print(f"packets lost     {found.lost[0]} by the browser, {found.lost[1]} by the bridge")
    print(f"sound devices    {found.devices_ms:.1f} ms more, by the browser's own account")


if __name__ == "__main__":
    main()

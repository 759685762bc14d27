"""A call whose packets a bad network loses and delays: sipp's packets, through `rtsr call sip`.

    python tests/rtsr/call/bad_network.py                         3 % lost, 30 ms of jitter
    python tests/rtsr/call/bad_network.py --loss 0.10 --jitter-ms 30

sipp calls the bridge and sends speech in G.711 from a capture file (pcap). In that file packets are
missing and late as after such a network, by a seeded pattern; the first seconds are unharmed. What
the bridge sends is taken, with the time of each packet, and decoded by libopus. "No bridge" is the
sound of the same packets, played by the receiver alone. STOI needs the package pystoi.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiosipua", reason='calls need the extra "call", and Python 3.11 or newer')

from aiosipua import SipUAS, parse_sdp
from network import heard, packets, sent, sound_of, speech
from scipy.signal import fftconvolve, resample_poly

from rtsr.call.decoders import open_decoder
from rtsr.call.formats import OPUS, PCMU, Packet
from rtsr.call.receiver import Receiver
from rtsr.call.sip.udp import UdpTransport

#: Seconds at the beginning in which nothing is lost or late.
CLEAN = 4.0
#: Rate at which sounds are compared, that of STOI.
RATE = 10_000
_WINDOW = 2.0

_SCENARIO = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="a recording">
<send retrans="500"><![CDATA[
INVITE sip:x@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:a@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:x@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:a@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: [len]

v=0
o=a 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 0
a=rtpmap:0 PCMU/8000
]]></send>
<recv response="100" optional="true"/><recv response="180" optional="true"/>
<recv response="200" rrs="true"/>
<send><![CDATA[
ACK [next_url] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:a@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:x@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
<nop><action><exec play_pcap_audio="{capture}"/></action></nop>
<pause milliseconds="{milliseconds}"/>
<send retrans="500"><![CDATA[
BYE [next_url] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:a@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:x@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 2 BYE
Max-Forwards: 70
Content-Length: 0

]]></send>
<recv response="200"/>
</scenario>
"""


@dataclass(frozen=True)
class Heard:
    """What a bad network made of a call.

    Attributes:
        lost: share of the packets that did not come, after the clean seconds.
        gaps_ms: by how much more than 20 ms each packet that left came after the one before.
        delays_ms: by how much the sound is later than in the best two seconds of the call, the
            clean ones included, every two seconds.
        pairs: what was said and what was heard at that time, ``(samples,)`` at 10 kHz.
        alone: the same, of the receiver alone.
    """

    lost: float
    gaps_ms: np.ndarray
    delays_ms: np.ndarray
    pairs: list[tuple[np.ndarray, np.ndarray]]
    alone: list[tuple[np.ndarray, np.ndarray]]


def pattern(said: np.ndarray, loss: float, jitter: float, seed: int) -> list[tuple[float, Packet]]:
    """When each packet of a voice arrives, in seconds from the first one."""
    stream = packets(said, first_number=1000, first_time=16000, ssrc=77)
    count = round(CLEAN / 0.020)
    late = sent(
        stream[count:], start=CLEAN, loss=loss, jitter=lambda c: jitter * c.random(), seed=seed
    )
    return sorted(sent(stream[:count], start=0.0) + late, key=lambda arrival: arrival[0])


def write_capture(path: Path, arrivals: list[tuple[float, Packet]]) -> None:
    """Write packets as a capture of Ethernet frames, as sipp plays them."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for at, packet in arrivals:
            rtp = struct.pack(
                "!BBHII", 0x80, 0, packet.sequence_number, packet.timestamp, packet.ssrc
            )
            data = rtp + packet.payload
            udp = struct.pack("!HHHH", 6000, 6000, 8 + len(data), 0)
            address = bytes([127, 0, 0, 1])
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(data), 0, 0, 64, 17, 0) + 2 * address
            frame = bytes(12) + b"\x08\x00" + ip + udp + data
            seconds, micros = divmod(round(1e6 * (at + 1.0)), 1_000_000)
            file.write(struct.pack("<IIII", seconds, micros, len(frame), len(frame)) + frame)


class _Callee(asyncio.DatagramProtocol):
    """Answers one call with Opus and takes down what comes and when."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, bytes]] = []

    async def start(self) -> tuple[UdpTransport, asyncio.DatagramTransport]:
        loop = asyncio.get_running_loop()
        transport = UdpTransport(local_addr=("127.0.0.1", 0))
        self.agent = SipUAS(transport)
        self.agent.on_invite = self._answer
        await self.agent.start()
        media, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self._port = media.get_extra_info("sockname")[1]
        return transport, media

    def _answer(self, call: object) -> None:
        call.accept(  # type: ignore[attr-defined]
            parse_sdp(
                "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
                f"m=audio {self._port} RTP/AVP 96\r\na=rtpmap:96 opus/48000/2\r\n"
            )
        )

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.taken.append((time.monotonic(), data))


async def _called(folder: Path, seconds: float, options: list[str]) -> list[tuple[float, bytes]]:
    """Have sipp call through the bridge; the packets that left it, and when."""
    callee = _Callee()
    transport, media = await callee.start()
    bridge = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rtsr", "call", "sip", "--listen", "127.0.0.1:0",
        "--to", f"sip:x@127.0.0.1:{transport.local_addr[1]}", "--calls", "1", *options,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert bridge.stdout is not None
        line = (await bridge.stdout.readline()).decode()
        port = line.split(" to ")[0].rsplit(":", 1)[1]
        caller = await asyncio.create_subprocess_exec(
            "sipp", "-sf", "call.xml", f"127.0.0.1:{port}", "-i", "127.0.0.1", "-m", "1",
            "-nostdin", "-timeout", f"{round(seconds + 30)}", cwd=folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert await caller.wait() == 0, "sipp's call failed"
    finally:
        bridge.terminate()
        await bridge.wait()
        media.close()
        await callee.agent.stop()
    return callee.taken


def _pieces(
    sound: np.ndarray, said: np.ndarray
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Where each two seconds of a sound lie in what was said: offsets in seconds, and pairs."""
    size, span = round(_WINDOW * RATE), RATE // 2
    offsets, pairs = [], []
    for start in range(span, len(sound) - size - span, size):
        part = sound[start : start + size]
        where = said[start - span : start + size + span]
        if len(where) < len(part):
            break
        at = int(np.argmax(fftconvolve(where, part[::-1], "valid")))
        offsets.append((span - at) / RATE)
        pairs.append((where[at : at + size], part))
    return np.array(offsets), pairs


def measured(folder: Path, loss: float, jitter: float, seconds: float, seed: int = 1) -> Heard:
    """Have a call of so many seconds through a network with such loss and jitter."""
    voice = speech(8000, seconds)
    arrivals = pattern(voice, loss, jitter, seed)
    write_capture(folder / "voice.pcap", arrivals)
    scenario = _SCENARIO.format(capture="voice.pcap", milliseconds=round(1000 * seconds + 500))
    (folder / "call.xml").write_text(scenario)
    taken = asyncio.run(_called(folder, seconds, ["--model", "small-int8"]))
    times = np.array([at for at, _ in taken])
    rtp = [(*struct.unpack_from("!BBHI", data), data[12:]) for _, data in taken]
    opus = [each for each in rtp if each[1] & 127 == 96]
    times = times[[each[1] & 127 == 96 for each in rtp]]
    assert all((b[2] - a[2]) % 2**16 == 1 for a, b in itertools.pairwise(opus))
    decoder = open_decoder(OPUS)
    sound = np.concatenate([decoder.decode(each[4])[:, 0] for each in opus])
    said = resample_poly(voice, RATE, 8000)
    offsets, pairs = _pieces(resample_poly(sound, RATE, 48000), said)
    # The place of a sound in the stream says what was played; when, its packet's own time does.
    late = times - times[0] - 0.020 * np.arange(len(times))
    starts = (RATE // 2 + round(_WINDOW * RATE) * np.arange(len(offsets))) / RATE
    played = [np.median(late[round(at / 0.020) :][: round(_WINDOW / 0.020)]) for at in starts]
    delays = 1000.0 * (offsets + np.array(played))
    clean = starts + _WINDOW < CLEAN
    alone = sound_of(heard(Receiver({0: PCMU}), arrivals, after=0.0))
    _, others = _pieces(resample_poly(alone, RATE, 8000), said)
    expected = round((seconds - CLEAN) / 0.020)
    return Heard(
        1.0 - sum(at >= CLEAN for at, _ in arrivals) / expected,
        1000.0 * np.diff(times)[round(CLEAN / 0.020) :] - 20.0,
        (delays - delays.min())[~clean],
        [pair for pair, is_clean in zip(pairs, clean, strict=True) if not is_clean],
        others[int(np.sum(clean)) :],
    )


def why_not() -> str | None:
    """Why no such call can be made here, if none can."""
    return None if shutil.which("sipp") else "there is no sipp here"


def main() -> None:
    """Read the options, have the call and print how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loss", type=float, default=0.03, help="share of the packets")
    parser.add_argument("--jitter-ms", type=float, default=30.0, help="evenly from 0 to this")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if why_not() is not None:
        parser.exit(2, f"{why_not()}\n")
    from pystoi import stoi

    with tempfile.TemporaryDirectory() as folder:
        found = measured(
            Path(folder),
            arguments.loss,
            arguments.jitter_ms / 1000.0,
            arguments.seconds,
            arguments.seed,
        )
    rare, longest = np.percentile(found.gaps_ms, [99, 100])
    print(f"lost          {100 * found.lost:.1f} % of what was sent")
    print(f"gaps          p99 {rare:.1f} ms, longest {longest:.1f} ms, "
          f"{np.sum(found.gaps_ms > 20.0)} of {len(found.gaps_ms)} over 20 ms")  # fmt: skip
    print(f"jitter delay  median {np.median(found.delays_ms):.1f} ms, "
          f"longest {found.delays_ms.max():.1f} ms")  # fmt: skip
    bridged, alone = (
        np.mean([stoi(said, part, RATE) for said, part in pairs])
        for pairs in (found.pairs, found.alone)
    )
    print(f"STOI          {bridged:.3f} through the bridge, {alone:.3f} without it")


if __name__ == "__main__":
    main()

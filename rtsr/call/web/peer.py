"""One browser's call: what it offers, what is answered, and the line in between."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import Any

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.rtp import RtcpReceiverInfo
from aiortc.sdp import MediaDescription, SessionDescription

from rtsr.call.dtx import wants_dtx
from rtsr.call.encoders import DEFAULT_BITRATE, check_bitrate, most_bits
from rtsr.call.engine import CallEngine, Line
from rtsr.call.formats import FORMATS, OPUS, PayloadFormat
from rtsr.call.monitor import Monitor
from rtsr.call.receiver import Receiver
from rtsr.call.receiver_reports import take_report
from rtsr.call.sender import Sender
from rtsr.call.web.received_packets import take_packets
from rtsr.call.web.received_reports import take_reports
from rtsr.call.web.telephone_events import accept_events
from rtsr.call.web.track import PacketTrack
from rtsr.errors import RtsrError
from rtsr.live.monitor.colour_state import ColourMonitor

__all__ = ["BadOfferError", "WebCall"]

_log = logging.getLogger(__name__)

LONGEST_OFFER = 64 * 1024
_MOST_MEDIA = 16
_CONNECT_SECONDS = 30.0
_SPEAKS = ("sendonly", "sendrecv")
# What names no numeric address: by it browsers hide theirs, and across networks it says nothing.
_HIDDEN = re.compile(r"a=candidate:\S+ \d+ \S+ \d+ (?![\d.]+ |\S*:)", re.ASCII)
# aiortc says nothing more of Opus.
_OPUS_LINE = re.compile(r"a=rtpmap:(\d+) opus/48000/2\r\n", re.ASCII | re.IGNORECASE)
_LISTENS = ("recvonly", "sendrecv")
_BY_NAME = {form.name.lower(): form for form in FORMATS}


class BadOfferError(RtsrError):
    """What a browser offers cannot be answered."""


class WebCall:
    """A peer connection that receives one codec and sends another.

    The browser offers a transceiver that only sends (its microphone, in PCMU or what else it likes)
    and one that only receives (Opus); one for both works too. Made by :meth:`answer`.

    Attributes:
        name: for logs and addresses; says nothing about who calls.
        line: the call's direction through the engine.
        colour: tells what is known of the caller's colour; ``None`` where there is none.
        started: seconds, by :func:`time.monotonic`.
    """

    def __init__(
        self,
        name: str,
        bitrate: int,
        dtx: bool | None,
        on_end: Callable[[WebCall], None],
        stun: tuple[str, int] | None,
    ) -> None:
        self.name = name
        self.started = time.monotonic()
        self.sending: PayloadFormat = OPUS
        self.line: Line | None = None
        self.colour: ColourMonitor | None = None
        self._bitrate = bitrate
        self._dtx = dtx
        self._on_end = on_end
        # Left to itself aiortc asks a server of Google's, and waits for it.
        servers = [] if stun is None else [RTCIceServer(f"stun:{stun[0]}:{stun[1]}")]
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._track: PacketTrack | None = None
        self._ended = False
        self._watch: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def answer(
        cls,
        engine: CallEngine,
        name: str,
        sdp: str,
        on_end: Callable[[WebCall], None],
        *,
        bitrate: int = DEFAULT_BITRATE,
        dtx: bool | None = None,
        stun: tuple[str, int] | None = None,
    ) -> tuple[WebCall, str]:
        """Answer an offer; the slot in the batch is taken before.

        Args:
            engine: where the sound is enhanced.
            name: of the call.
            sdp: the offer.
            on_end: called once, when the call is over.
            bitrate: of Opus, bits per second.
            dtx: whether Opus sends no silence; ``None`` does as the offer asks.
            stun: host and port of a STUN server (RFC 8489) that says under which address others see
                this machine; ``None`` asks nobody.

        Returns:
            The call and the answer's SDP.

        Raises:
            BadOfferError: the offer cannot be read, or has no audio to send or none to receive.
            BusyError: all slots are taken.
            ArgumentError: the bitrate is out of range.
        """
        check_bitrate(bitrate)
        offer = _parsed(sdp)
        call = cls(name, bitrate, dtx, on_end, stun)
        try:
            return call, await call._answer(engine, offer, sdp)
        except Exception as error:
            await call.close()
            if isinstance(error, RtsrError):
                raise
            # aiortc has no error of its own for what it cannot use, and what an offer can be wrong
            # in has no end.
            _log.info("an offer was not usable", extra={"call": name, "reason": _reason(error)})
            raise BadOfferError(f"The offer cannot be used: {_reason(error)}.") from None
        except BaseException:
            await call.close()
            raise

    async def close(self) -> None:
        """Hang up. May be called twice."""
        if self._ended:
            return
        self._ended = True
        if self._watch is not None:
            self._watch.cancel()
        if self.line is not None:
            self.line.close()
        if self._track is not None:
            self._track.stop()
        self._on_end(self)
        try:
            await self._peer.close()
        except Exception as error:
            # Where it was not set up whole, aiortc cannot take it down whole either.
            _log.info("not closed whole", extra={"call": self.name, "reason": _reason(error)})
        _log.info("web call over", extra={"call": self.name, "seconds": self.seconds})

    @property
    def has_ended(self) -> bool:
        """Whether it was hung up."""
        return self._ended

    @property
    def seconds(self) -> float:
        """How long the call has lasted."""
        return round(time.monotonic() - self.started, 1)

    async def _answer(self, engine: CallEngine, offer: SessionDescription, sdp: str) -> str:
        speaking, listening = _choose(offer)
        sdp = _with_time_to_be_found(sdp)
        await self._peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        by_line = {each._get_mline_index(): each for each in self._peer.getTransceivers()}
        receiving, sending = by_line.get(speaking), by_line.get(listening)
        if receiving is None or sending is None:
            raise BadOfferError("The offer's media cannot be used.")
        self._track = PacketTrack()
        sending.sender.replaceTrack(self._track)
        for other in by_line.values():
            # What nobody reads, as of a camera, is not to be sent: aiortc would decode and keep it.
            other.direction = "inactive"
        receiving.direction = "sendrecv" if receiving is sending else "recvonly"
        if receiving is not sending:
            sending.direction = "sendonly"
        accept_events(receiving, offer.media[speaking])
        self._peer.on("connectionstatechange", self._on_state)
        answer = await self._peer.createAnswer()
        formats = _formats(SessionDescription.parse(answer.sdp).media[speaking])
        spoken = _formats(SessionDescription.parse(answer.sdp).media[listening])
        if not formats or not spoken:
            raise BadOfferError("No codec fits; PCMU, PCMA, G722 and Opus do.")
        payload_type, self.sending = next(iter(spoken.items()))
        asked = _parameters(offer.media[listening], payload_type)
        if self._dtx is None:
            self._dtx = wants_dtx(asked)
        self._bitrate = min(self._bitrate, most_bits(asked) or self._bitrate)
        await self._open_line(engine, formats, payload_type)
        assert self.line is not None
        take_packets(receiving.receiver, self.line.receive)
        take_reports(sending.sender, self._take_report)
        await self._peer.setLocalDescription(answer)
        described = str(self._peer.localDescription.sdp)
        if "\na=candidate:" not in described:
            raise BadOfferError("There is no way on which the browser could reach this machine.")
        if engine.channels == 2:
            described = _in_stereo(described)
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(_CONNECT_SECONDS, self._check_connected)
        _log.info("web call taken", extra={"call": self.name, "codec": self.sending.name})
        return described

    async def _open_line(
        self, engine: CallEngine, formats: dict[int, PayloadFormat], payload_type: int
    ) -> None:
        assert self._track is not None
        channels = engine.channels if self.sending is OPUS else 1
        if channels != engine.channels:
            raise BadOfferError(f"{self.sending.name} does not carry two channels; offer Opus.")
        self._track.clock_rate = self.sending.clock_rate
        first = next(iter(formats.values()))
        self.line = await engine.open(
            Receiver(formats, channels),
            Sender(self.sending, payload_type, channels, self._bitrate, dtx=bool(self._dtx)),
            self._track.put,
            name=self.name,
            rate=first.sample_rate,
        )
        self.line.on_silence = self._hang_up
        stream = self.line.path.stream
        stream.monitor = Monitor(channels)
        self.colour = None if stream.colour is None else ColourMonitor(stream.colour)

    def _take_report(self, report: RtcpReceiverInfo) -> None:
        assert self.line is not None
        path = self.line.path
        assert path.sender is not None
        take_report(path.far, report, path.sender.sent, self.sending.clock_rate)

    def _on_state(self) -> None:
        if self._peer.connectionState in ("failed", "closed"):
            self._hang_up()

    def _check_connected(self) -> None:
        if self._peer.connectionState != "connected":
            self._hang_up()

    def _hang_up(self) -> None:
        if not self._ended and self._closing is None:
            self._closing = asyncio.ensure_future(self.close())


def _parsed(sdp: str) -> SessionDescription:
    if len(sdp) > LONGEST_OFFER:
        raise BadOfferError(f"An offer has at most {LONGEST_OFFER // 1024} kB.")
    if sum(line.startswith("m=") for line in sdp.splitlines()) > _MOST_MEDIA:
        # Reading and answering hundreds would hold up the packets of all calls.
        raise BadOfferError(f"An offer has at most {_MOST_MEDIA} media.")
    try:
        return SessionDescription.parse(sdp)
    except Exception as error:
        raise BadOfferError(f"The offer is no SDP: {_reason(error)}.") from None


def _with_time_to_be_found(sdp: str) -> str:
    """Return an offer whose browser may still reach us where we reach none of its addresses.

    Its own checks show where it is, and are to be waited for (RFC 8863). Where it says that its
    candidates are all there are and none can be tried, aioice would give up at once, and leave out
    ours; names it would ask the network for.
    """
    return "".join(
        line
        for line in sdp.splitlines(keepends=True)
        if line.strip() != "a=end-of-candidates" and not _HIDDEN.match(line)
    )


def _in_stereo(sdp: str) -> str:
    """Return an answer that says that two channels are taken and sent (RFC 7587, 6.1)."""
    return _OPUS_LINE.sub(r"\g<0>a=fmtp:\1 stereo=1;sprop-stereo=1\r\n", sdp)


def _choose(offer: SessionDescription) -> tuple[int, int]:
    """Return the indices of the media on which the browser sends and receives."""
    audio = [(i, each.direction) for i, each in enumerate(offer.media) if each.kind == "audio"]
    speaking = next((i for i, direction in audio if direction in _SPEAKS), None)
    if speaking is None:
        raise BadOfferError("The offer has no sound to enhance; send a microphone.")
    listening = [i for i, direction in audio if direction in _LISTENS]
    # One that only listens can have a codec of its own.
    alone = next((i for i in listening if i != speaking), None)
    if alone is None and not listening:
        raise BadOfferError("The result would not be played: offer audio to receive, too.")
    return speaking, listening[0] if alone is None else alone


def _formats(media: MediaDescription) -> dict[int, PayloadFormat]:
    """Return the codecs of an answer by payload type, the preferred one first."""
    found = {}
    for codec in media.rtp.codecs:
        form = _BY_NAME.get(codec.name.lower())
        if form is not None and codec.payloadType is not None:
            found[int(codec.payloadType)] = form
    return found


def _parameters(media: MediaDescription, payload_type: int) -> str:
    """Return the parameters of a codec in an offer, as ``a=fmtp`` has them."""
    return ";".join(
        f"{name}={value}"
        for codec in media.rtp.codecs
        if codec.payloadType == payload_type
        for name, value in codec.parameters.items()
    )


def _reason(error: Any) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return text[:160] or type(error).__name__

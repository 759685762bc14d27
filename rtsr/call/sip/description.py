"""SDP of a leg: which codecs it offers, which it takes, where its packets go."""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiosipua import (
    MediaDescription,
    SdpMessage,
    SipRequest,
    SipResponse,
    parse_sdp,
    serialize_sdp,
)
from aiosipua.sdp import ConnectionData, Origin

from rtsr.call.dtx import wants_dtx
from rtsr.call.encoders import most_bits
from rtsr.call.formats import (
    COMFORT_NOISE,
    FORMATS,
    OPUS,
    STATIC_PAYLOAD_TYPES,
    TELEPHONE_EVENT,
    PayloadFormat,
)
from rtsr.errors import RtsrError

__all__ = [
    "SENT_IN_STEREO",
    "TAKEN_IN_STEREO",
    "Media",
    "Session",
    "Unacceptable",
    "answer",
    "description_in",
    "has_too_many_media",
    "offer",
    "read_answer",
    "read_offer",
]

#: Of Opus (RFC 7587, 6.1): two channels are sent, or would rather be taken than one.
SENT_IN_STEREO, TAKEN_IN_STEREO = ";sprop-stereo=1", ";stereo=1"

SUITE = "AES_CM_128_HMAC_SHA1_80"
KEY_BYTES = 30

_BY_NAME = {form.name.lower(): form for form in FORMATS}
_FIRST_DYNAMIC, _FIRST_EVENTS = 96, 101
_HIGHEST_CLOCK = 192_000
_MOST_MEDIA = 16
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_WITHOUT_SENDING_TO = {"sendrecv": "sendonly", "recvonly": "inactive"}


class Unacceptable(RtsrError):
    """There is no common codec or transport: 488 in SIP."""


@dataclass
class Media:
    """What two ends have agreed on, or one proposes.

    Attributes:
        address: where the other end takes packets.
        formats: codecs by payload type, the one to be sent first.
        event_rates: Hz of the clock of telephone events, by their payload types.
        direction: of the other end.
        their_key, our_key: for SRTP, key and salt; ``None`` without.
        crypto_tag: which of the offered keys was taken.
        index: of the audio among all media of the offer.
        control: where the other end takes reports (RTCP).
        shares_port: whether reports go with the packets (RFC 5761).
        dtx_types: payload types in which the other end would rather not be sent silence (RFC 7587).
        bitrates: the most bits per second that the other end takes, by payload types of Opus.
        own_formats, own_event_rates: as we have offered them, if this is an answer.
    """

    address: tuple[str, int]
    formats: dict[int, PayloadFormat]
    event_rates: dict[int, int] = field(default_factory=dict)
    direction: str = "sendrecv"
    their_key: bytes | None = None
    our_key: bytes | None = None
    crypto_tag: str = "1"
    index: int = 0
    others: list[MediaDescription] = field(default_factory=list)
    control: tuple[str, int] | None = None
    shares_port: bool = False
    dtx_types: frozenset[int] = frozenset()
    bitrates: dict[int, int] = field(default_factory=dict)
    own_formats: dict[int, PayloadFormat] = field(default_factory=dict)
    own_event_rates: dict[int, int] = field(default_factory=dict)

    @property
    def incoming_formats(self) -> dict[int, PayloadFormat]:
        """Codecs of what comes in, by payload type.

        Who answers with numbers of their own sends what we have offered under ours (RFC 3264, 5.1
        and 6.1), or under theirs all the same. Where both ends name a number for different codecs,
        as with two that are swapped, it is ours.
        """
        return {**self.formats, **self.own_formats}

    @property
    def incoming_event_rates(self) -> dict[int, int]:
        """Hz of the clock of telephone events that come in, by their payload types."""
        return {**self.own_event_rates, **self.event_rates}

    @property
    def payload_type(self) -> int:
        """Of the codec to be sent."""
        return next(pt for pt, form in self.formats.items() if _has_sound(form))

    @property
    def form(self) -> PayloadFormat:
        """The codec to be sent."""
        return self.formats[self.payload_type]

    @property
    def event_type(self) -> int | None:
        """Payload type of telephone events, if there are any: one with the codec's clock, at best.

        All packets of a stream go by one clock (RFC 4733, 2.1).
        """
        clock = self.form.clock_rate
        types = sorted(self.event_rates, key=lambda pt: self.event_rates[pt] != clock)
        return types[0] if types else None

    @property
    def event_rate(self) -> int:
        """Hz of the clock of these events."""
        return 8000 if self.event_type is None else self.event_rates[self.event_type]

    @property
    def has_address(self) -> bool:
        """Whether the other end says where it takes packets; who holds us may not."""
        return not ipaddress.ip_address(self.address[0]).is_unspecified

    @property
    def hears(self) -> bool:
        """Whether the other end takes sound; it does not while it holds us, for example."""
        return self.direction in ("sendrecv", "recvonly")

    @property
    def wants_dtx(self) -> bool:
        """Whether the other end would rather not be sent silence."""
        return self.payload_type in self.dtx_types

    def bitrate(self, wanted: int) -> int:
        """Return the bits per second to be sent: as ``wanted``, or what the other end takes."""
        return min(wanted, self.bitrates.get(self.payload_type, wanted))

    @property
    def is_secure(self) -> bool:
        """Whether packets are SRTP."""
        return self.our_key is not None


class Session:
    """Names our descriptions of one leg: each is a newer version of the same (RFC 3264, 8)."""

    def __init__(self) -> None:
        self.number = secrets.randbits(31)
        self._version = 0

    def next_version(self) -> int:
        """Return the number of one more description."""
        self._version += 1
        return self._version


def description_in(message: SipRequest | SipResponse) -> SdpMessage | None:
    """Return the description that a message carries, if it carries one.

    Raises:
        ValueError: it cannot be read.
    """
    return parse_sdp(message.text) if message.body and _is_described(message) else None


def has_too_many_media(message: SipRequest | SipResponse) -> bool:
    """Whether a message's description names more media than one call has, without reading them."""
    if not message.body or not _is_described(message):
        return False
    lines = message.text.splitlines()
    return sum(line.strip().startswith("m=") for line in lines) > _MOST_MEDIA


def _is_described(message: SipRequest | SipResponse) -> bool:
    # Media types go by any case, and may have parameters (RFC 3261, 7.3.1 and 20.15).
    kind = (message.content_type or "").partition(";")[0].strip().lower()
    return kind == "application/sdp"


def read_offer(sdp: SdpMessage | None, preferred: Sequence[PayloadFormat] = ()) -> Media:
    """Read from an offer what it proposes that we support.

    Args:
        sdp: the offer.
        preferred: codecs to take before the offer's own order.

    Raises:
        Unacceptable: no audio, no codec or no transport that we have.
    """
    media = _read(sdp)
    if preferred:
        order = {form: place for place, form in enumerate(preferred)}
        ranked = sorted(media.formats.items(), key=lambda item: order.get(item[1], len(order)))
        media.formats = dict(ranked)
    if media.their_key is not None:
        media.our_key = secrets.token_bytes(KEY_BYTES)
    return media


def read_answer(sdp: SdpMessage | None, our_key: bytes | None, ours: SdpMessage | None) -> Media:
    """Read the answer to our offer.

    Args:
        sdp: the answer.
        our_key: the key that we have offered.
        ours: the offer, whose payload types count for what comes in.

    Raises:
        Unacceptable: as for :func:`read_offer`, or an answer without a key to an offer with one.
    """
    media = _read(sdp)
    if (our_key is None) != (media.their_key is None):
        raise Unacceptable("Only one end wants its sound encrypted.")
    media.our_key = our_key
    if ours is not None:
        written = parse_sdp(serialize_sdp(ours))
        # What is not taken of several has no port.
        audio = next(each for each in written.media if each.port)
        media.own_formats, media.own_event_rates = _codecs(audio)
    return media


def offer(
    address: tuple[str, int],
    forms: Sequence[PayloadFormat],
    our_key: bytes | None,
    bitrate: int,
    session: Session,
    control_port: int | None = None,
    more_of_opus: str = "",
) -> SdpMessage:
    """Make an offer of these codecs, with telephone events.

    ``control_port`` is where reports are taken, if they do not come with the packets;
    ``more_of_opus`` are further parameters, as :data:`SENT_IN_STEREO`.
    """
    formats: dict[int, PayloadFormat] = {}
    dynamic = _FIRST_DYNAMIC
    static = {form: pt for pt, form in STATIC_PAYLOAD_TYPES.items()}
    for form in forms:
        if form in static:
            formats[static[form]] = form
        else:
            formats[dynamic] = form
            dynamic += 1
    # One for each clock: who takes another codec than the first one has keys, too.
    rates = dict.fromkeys(form.clock_rate for form in forms)
    event_rates = {_FIRST_EVENTS + place: rate for place, rate in enumerate(rates)}
    media = Media(address, formats, event_rates, our_key=our_key, shares_port=True)
    return _written(address, media, bitrate, session, control_port, more_of_opus)


def answer(
    address: tuple[str, int],
    media: Media,
    bitrate: int,
    session: Session,
    control_port: int | None = None,
    more_of_opus: str = "",
) -> SdpMessage:
    """Make the answer to a :func:`read_offer`; ``address`` is where packets are received."""
    return _written(address, media, bitrate, session, control_port, more_of_opus)


def _read(sdp: SdpMessage | None) -> Media:
    """Read the first audio that we can take: who offers two has a plain one behind the better."""
    if sdp is None:
        raise Unacceptable("There is no description of the sound.")
    refusals: list[Unacceptable] = []
    for index, each in enumerate(sdp.media):
        if each.media == "audio" and each.port:
            try:
                return _read_audio(sdp, index)
            except Unacceptable as refusal:
                refusals.append(refusal)
    raise refusals[0] if refusals else Unacceptable("There is no audio.")


def _read_audio(sdp: SdpMessage, index: int) -> Media:
    audio = sdp.media[index]
    connection = audio.connection or sdp.connection
    if connection is None or not 0 < audio.port < 65536:
        raise Unacceptable("There is no address to send sound to.")
    try:
        # A name would have to be looked up while all other calls wait.
        host = _without_scope(connection.address.split("/")[0])
    except ValueError:
        raise Unacceptable("Sound is sent to addresses, not to names.") from None
    formats, event_rates = _codecs(audio)
    media = Media((host, audio.port), formats, event_rates, index=index, others=sdp.media)
    for codec in audio.codecs:
        if formats.get(codec.payload_type) is OPUS:
            _read_wishes(codec.fmtp or "", codec.payload_type, media)
    if not any(_has_sound(form) for form in media.formats.values()):
        raise Unacceptable("No codec fits; PCMU, PCMA, G722 and opus do.")
    # What is said of the whole session counts for its audio, too (RFC 8866, 6.7).
    said = [*audio.attributes, *sdp.attributes, "sendrecv"]
    media.direction = next(each for each in said if each in _DIRECTIONS)
    if not media.has_address:
        # How calls were put on hold before there were directions (RFC 3264, 8.4).
        media.direction = _WITHOUT_SENDING_TO.get(media.direction, media.direction)
    media.shares_port = "rtcp-mux" in audio.attributes
    media.control = _control(audio, media.address)
    _read_key(audio, media)
    return media


def _codecs(audio: MediaDescription) -> tuple[dict[int, PayloadFormat], dict[int, int]]:
    """Return the codecs that we have, by payload type, and the clock of those that are events."""
    formats: dict[int, PayloadFormat] = {}
    event_rates: dict[int, int] = {}
    for codec in audio.codecs:
        form = _BY_NAME.get(codec.encoding_name.lower())
        if form is None and not codec.encoding_name:
            form = STATIC_PAYLOAD_TYPES.get(codec.payload_type)
        if form is None or not 0 <= codec.payload_type < 128:
            continue
        if form is TELEPHONE_EVENT:
            rate = codec.clock_rate or 8000
            if not 0 < rate <= _HIGHEST_CLOCK:
                continue
            event_rates[codec.payload_type] = rate
        elif codec.clock_rate not in (0, form.clock_rate) or (
            form.channels == 1 and codec.channels not in (None, 1)
        ):
            continue
        formats[codec.payload_type] = form
    return formats, event_rates


def _read_wishes(parameters: str, payload_type: int, media: Media) -> None:
    """Read how the other end would be sent Opus (RFC 7587, 6.1)."""
    if wants_dtx(parameters):
        media.dtx_types |= {payload_type}
    most = most_bits(parameters)
    if most is not None:
        media.bitrates[payload_type] = most


def _without_scope(text: str) -> str:
    """Return an address as it is written; one that names another machine's interface is none.

    Raises:
        ValueError: it is no address.
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise ValueError(text)
    return str(address)


def _control(audio: MediaDescription, address: tuple[str, int]) -> tuple[str, int]:
    """Where reports are taken: as said (RFC 3605), else on the next port."""
    host, port = address
    for line in audio.attributes.get("rtcp", []):
        words = line.split()
        if not words or not words[0].isdecimal() or not 0 < int(words[0]) < 65536:
            continue
        # A name would have to be looked up, and what is no address breaks a socket.
        with contextlib.suppress(IndexError, ValueError):
            host = _without_scope(words[3])
        return host, int(words[0])
    return host, min(port + 1, 65535)


def _read_key(audio: MediaDescription, media: Media) -> None:
    if audio.proto == "RTP/AVP":
        return
    if audio.proto != "RTP/SAVP":
        raise Unacceptable(f"Sound comes as RTP/AVP or RTP/SAVP, not {audio.proto[:20]}.")
    for line in audio.attributes.get("crypto", []):
        parts = line.split()
        if len(parts) < 3 or parts[1] != SUITE or not parts[2].startswith("inline:"):
            continue
        if _changes_packets(parts[2], parts[3:]):
            continue
        try:
            key = base64.b64decode(parts[2][7:].split("|")[0], validate=True)
        except (binascii.Error, ValueError):
            continue
        if len(key) == KEY_BYTES:
            media.their_key, media.crypto_tag = key, parts[0]
            return
    raise Unacceptable(f"Encrypted sound needs a key for {SUITE}.")


def _changes_packets(key: str, parameters: Sequence[str]) -> bool:
    """Whether packets under an offered key would not be those that we read and write.

    Behind an identifier of the key (MKI, which alone has a colon; several keys need it) there is
    one more field in each, and parameters of the session leave encryption out, for example. What
    is not followed must not be accepted (RFC 4568, 6.1 and 6.3); the size of a window against
    replays, and what begins with a minus, may be passed over.
    """
    has_identifier = ":" in key.removeprefix("inline:")
    return has_identifier or any(not each.startswith(("WSH=", "-")) for each in parameters)


def _written(
    address: tuple[str, int],
    media: Media,
    bitrate: int,
    session: Session,
    control_port: int | None,
    more_of_opus: str,
) -> SdpMessage:
    host, port = address
    family = "IP6" if ":" in host else "IP4"
    audio = MediaDescription(
        media="audio", port=port, proto="RTP/SAVP" if media.is_secure else "RTP/AVP"
    )
    rtpmap, fmtp = [], []
    for payload_type, form in media.formats.items():
        if form is TELEPHONE_EVENT:
            continue
        audio.formats.append(str(payload_type))
        rtpmap.append(f"{payload_type} {form.rtpmap}")
        if form is OPUS:
            # The other end's encoder is asked for full band, too.
            wishes = f"maxplaybackrate=48000;maxaveragebitrate={bitrate}{more_of_opus}"
            fmtp.append(f"{payload_type} {wishes}")
    for event_type, rate in media.event_rates.items():
        audio.formats.append(str(event_type))
        rtpmap.append(f"{event_type} telephone-event/{rate}")
        fmtp.append(f"{event_type} 0-15")
    audio.attributes["rtpmap"] = rtpmap
    if fmtp:
        audio.attributes["fmtp"] = fmtp
    audio.attributes["ptime"] = ["20"]
    if media.shares_port:
        audio.attributes["rtcp-mux"] = []
    if control_port is not None:
        audio.attributes["rtcp"] = [str(control_port)]
    if media.our_key is not None:
        key = base64.b64encode(media.our_key).decode()
        audio.attributes["crypto"] = [f"{media.crypto_tag} {SUITE} inline:{key}"]
    mirrored = {"sendonly": "recvonly", "recvonly": "sendonly"}
    audio.attributes[mirrored.get(media.direction, media.direction)] = []
    sections = [
        audio
        if place == media.index
        # What is not taken is answered with port 0 (RFC 3264, 6).
        else MediaDescription(media=each.media, port=0, proto=each.proto, formats=each.formats)
        for place, each in enumerate(media.others or [audio])
    ]
    return SdpMessage(
        origin=Origin("-", str(session.number), str(session.next_version()), "IN", family, host),
        session_name="-",
        connection=ConnectionData("IN", family, host),
        media=sections,
    )


def _has_sound(form: PayloadFormat) -> bool:
    return form not in (COMFORT_NOISE, TELEPHONE_EVENT)

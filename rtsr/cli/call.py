"""``rtsr call``: calls from browsers and telephones, in full band."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtsr.cli import options
from rtsr.cli.addresses import host_and_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtsr.call.engine import CallEngine
    from rtsr.live.controls.board import ControlBoard
    from rtsr.page.learning import Learning

call_app = typer.Typer(
    no_args_is_help=True,
    help="Take calls: narrow-band sound in, full-band Opus out.",
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@call_app.callback()
def call_command() -> None:
    """Take calls: narrow-band sound in, full-band Opus out."""


_LISTENING = "Listening"
_CALLS = "Calls"

CertificateKey = Annotated[
    Path | None,
    typer.Option(
        "--key", metavar="FILE", help="The certificate's key.", rich_help_panel=_LISTENING
    ),
]
Calls = Annotated[
    int,
    typer.Option("--calls", help="How many at a time; others are refused.", rich_help_panel=_CALLS),
]
Bitrate = Annotated[
    int,
    typer.Option(
        "--bitrate", help="Of Opus, in bits per second, 6000 to 510000.", rich_help_panel=_CALLS
    ),
]
Dtx = Annotated[
    bool | None,
    typer.Option(
        "--dtx/--no-dtx",
        help="Send next to nothing in silence, where Opus goes out; if left out, to those who ask "
        "for it (usedtx=1).",
        show_default=False,
        rich_help_panel=_CALLS,
    ),
]
Channels = Annotated[
    int,
    typer.Option(
        "--channels",
        help="Of what is enhanced, 1 or 2; with 2, Opus goes out in stereo, is asked for in "
        "stereo, and a call takes two of the model's places.",
        rich_help_panel=_CALLS,
    ),
]
DeadlineMs = Annotated[
    float,
    typer.Option(
        "--deadline-ms",
        help="How long sound waits for the model before it goes out without the new band.",
        rich_help_panel=options._ENGINE,
    ),
]


@call_app.command("web")
def web_command(
    listen: Annotated[
        str,
        typer.Option(
            "--listen", "-l", metavar="HOST:PORT", help="Where.", rich_help_panel=_LISTENING
        ),
    ] = "127.0.0.1:8080",
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="SECRET",
            help="What the address must carry; drawn anew at every start if left out.",
            envvar="RTSR_CALL_TOKEN",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="HOST",
            help="Another name under which the server is reached, as behind a proxy. Repeatable.",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            metavar="FILE",
            help="For HTTPS, which browsers want for microphones of other machines (PEM).",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    key: CertificateKey = None,
    stun: Annotated[
        str | None,
        typer.Option(
            "--stun",
            metavar="HOST:PORT",
            help="A STUN server, which says under which address others see this machine; nobody is "
            "asked if left out.",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    midi: Annotated[
        str | None,
        typer.Option(
            "--midi",
            metavar="PORT",
            help="MIDI port of this machine whose knobs turn the calls that a page shows: number "
            "or part of the name.",
            rich_help_panel=options.KNOBS,
        ),
    ] = None,
    midi_map: options.MidiMap = None,
    calls: Calls = 4,
    bitrate: Bitrate = 64_000,
    dtx: Dtx = None,
    channels: Channels = 1,
    model: options.Network = "small",
    provider: options.Provider = "auto",
    threads: options.Threads = 1,
    deadline_ms: DeadlineMs = 40.0,
    colour: options.Colour = None,
) -> None:
    """Serve a page that calls, shows and steers; WebRTC for other pages, too.

    The address that is printed carries a token; all requests need it. Programs send it as
    "Authorization: Bearer", as Prometheus for /metrics.

      rtsr call web

      rtsr call web --listen 0.0.0.0:8443 --name calls.example.org --certificate c.pem --key k.pem
    """
    from rtsr.call.web.run import serve

    serve(
        lambda: _engine(calls, channels, model, provider, threads, deadline_ms, colour),
        host_and_port(listen),
        token=token or "",
        names=tuple(names or ()),
        certificate=certificate,
        key=key,
        bitrate=bitrate,
        dtx=dtx,
        stun=None if stun is None else host_and_port(stun),
        knobs=_knobs(midi, midi_map),
        announce=_announce,
    )


def _knobs(port: str | None, path: Path | None) -> Callable[[ControlBoard], Learning] | None:
    """Return what makes the MIDI knobs of a call, if there is to be any."""
    from rtsr.cli.knobs import Knobs
    from rtsr.page.learning import Learning

    if port is None and path is None:
        return None
    knobs = Knobs(port, path, None, on_page=True)
    return lambda board: Learning(board, knobs.path, port=knobs.port)


@call_app.command("sip")
def sip_command(
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="SIP-ADDRESS",
            help="Called for every caller: sip:USER@HOST[:PORT], and ;transport=tcp or tls, or "
            "sips:USER@HOST.",
            rich_help_panel=_LISTENING,
        ),
    ],
    listen: Annotated[
        str,
        typer.Option(
            "--listen",
            "-l",
            metavar="HOST:PORT",
            help="Where, over UDP and TCP.",
            rich_help_panel=_LISTENING,
        ),
    ] = "127.0.0.1:5060",
    advertise: Annotated[
        str | None,
        typer.Option(
            "--advertise",
            metavar="ADDRESS",
            help="The address or name by which others reach us, if they see another.",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    register: Annotated[
        str | None,
        typer.Option(
            "--register",
            metavar="SIP-ADDRESS",
            help="Register under this address, at its host.",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            help="Name for registrars and targets that ask; the password is in RTSR_SIP_PASSWORD.",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="HOST:PORT",
            help="Serve /metrics there, for Prometheus.",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            metavar="FILE",
            help="Listen over TLS, too, and show this certificate (PEM).",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    key: CertificateKey = None,
    tls_port: Annotated[
        int | None,
        typer.Option(
            "--tls-port",
            metavar="PORT",
            help="Where, over TLS; 5061 if left out.",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    authorities: Annotated[
        Path | None,
        typer.Option(
            "--authorities",
            metavar="FILE",
            help="Certificates (PEM) to trust at targets and registrars over TLS, in place of the "
            "system's.",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    codecs: Annotated[
        str,
        typer.Option(
            "--codecs",
            help="What is offered to the target, the best first: opus,G722,PCMU,PCMA.",
            rich_help_panel=_CALLS,
        ),
    ] = "opus",
    srtp: Annotated[
        bool,
        typer.Option(
            "--srtp/--no-srtp",
            help="Offer the target encrypted sound (keys in SDP). Callers' offers are followed.",
            rich_help_panel=_CALLS,
        ),
    ] = False,
    ports: Annotated[
        str | None,
        typer.Option(
            "--ports",
            metavar="FIRST-LAST",
            help="UDP ports for sound; any if left out.",
            rich_help_panel=_CALLS,
        ),
    ] = None,
    ring_seconds: Annotated[
        float,
        typer.Option("--ring-seconds", help="Give up who does not answer.", rich_help_panel=_CALLS),
    ] = 60.0,
    calls: Calls = 8,
    bitrate: Bitrate = 64_000,
    dtx: Dtx = None,
    channels: Channels = 1,
    model: options.Network = "small",
    provider: options.Provider = "auto",
    threads: options.Threads = 1,
    deadline_ms: DeadlineMs = 40.0,
    colour: options.CallersColours = None,
) -> None:
    """Bridge telephone calls: narrow-band on one side, full-band Opus on the other.

    Every caller is connected with the target. What goes from the narrow side to the wide one is
    enhanced; the other direction is transcoded.

      rtsr call sip --listen 192.0.2.7:5060 --to sip:desk@192.0.2.20

      rtsr call sip --listen 192.0.2.7:5060 --to sip:trunk@192.0.2.30 --codecs PCMA,PCMU
    """
    from rtsr.call.sip.run import serve
    from rtsr.call.sip.settings import settings_from, tls_from

    colours = options.kept_colours_folder(colour)
    shared = colour if colours is None else "auto"
    serve(
        lambda: _engine(calls, channels, model, provider, threads, deadline_ms, shared),
        host_and_port(listen),
        settings_from(to, codecs, bitrate, srtp, user, ring_seconds, ports, dtx, colours),
        advertise=advertise,
        register=register,
        metrics=None if metrics is None else host_and_port(metrics),
        tls=tls_from(certificate, key, tls_port, authorities),
        announce=_announce,
    )


def _announce(line: str) -> None:
    print(line, flush=True)


def _engine(
    calls: int,
    channels: int,
    model: str,
    provider: str,
    threads: int,
    deadline_ms: float,
    colour: str | None,
) -> CallEngine:
    from rtsr.call.engine import CallEngine

    return CallEngine(
        calls,
        channels=channels,
        model=options.find_network(model),
        provider=provider,
        threads=threads,
        deadline_ms=deadline_ms,
        colour=options.read_colour_option(colour),
    )

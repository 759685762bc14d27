"""``rtsr call web``: calls from browsers over HTTP, their page, and ``/metrics``."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from rtsr.call.encoders import DEFAULT_BITRATE
from rtsr.call.engine import BusyError, CallEngine
from rtsr.call.logs import log_task_failures
from rtsr.call.metrics import CONTENT_TYPE, exposition
from rtsr.call.web.peer import LONGEST_OFFER, WebCall
from rtsr.call.web.view import CallSubject
from rtsr.errors import ArgumentError
from rtsr.live.controls.board import ControlBoard
from rtsr.page.access import Access
from rtsr.page.application import Frame, PageApplication, refused_with
from rtsr.page.learning import Learning
from rtsr.page.messages import LONGEST_MESSAGE, body_object
from rtsr.page.view import show

__all__ = ["CallServer"]


class CallServer:
    """The web application; :attr:`app` goes to any ASGI server.

    Args:
        engine: where the calls go; started and stopped with the application.
        access: decides which requests are authorised.
        bitrate: of Opus, where the browser asks for none.
        dtx: whether Opus sends no silence; ``None`` does as each browser asks.
        stun: host and port of a STUN server, as for :meth:`~rtsr.call.web.peer.WebCall.answer`.
        knobs: makes what binds MIDI knobs of this machine to a call's controls while its page is
            open.
    """

    def __init__(
        self,
        engine: CallEngine,
        access: Access,
        *,
        bitrate: int = DEFAULT_BITRATE,
        dtx: bool | None = None,
        stun: tuple[str, int] | None = None,
        knobs: Callable[[ControlBoard], Learning] | None = None,
    ) -> None:
        self._engine = engine
        self._bitrate = bitrate
        self._dtx = dtx
        self._stun = stun
        self._knobs = knobs
        self._calls: dict[str, WebCall] = {}
        frame = Frame(
            title="a telephone call, in full band",
            script="call.js",
            state="No call yet.",
            delay="From a sound to its place in a packet, in milliseconds",
            section="call.html",
        )
        self._page = page = PageApplication(frame, access)
        self.app = page.build(
            [
                Route("/calls", page.guarded(self._offer), methods=["POST"]),
                Route("/calls/{name}", page.guarded(self._hang_up), methods=["DELETE"]),
                Route("/metrics", page.guarded(self._metrics, reads=True)),
                WebSocketRoute("/calls/{name}/view", self._view),
            ],
            self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        log_task_failures(asyncio.get_running_loop())
        async with self._engine:
            try:
                yield
            finally:
                for call in list(self._calls.values()):
                    await call.close()

    async def _offer(self, request: Request) -> Response:
        offer = await body_object(request, LONGEST_OFFER + LONGEST_MESSAGE)
        sdp, bitrate = offer.get("sdp"), offer.get("bitrate", self._bitrate)
        if not isinstance(sdp, str) or offer.get("type", "offer") != "offer":
            raise ArgumentError('A call begins with an offer: {"type": "offer", "sdp": ...}.')
        if not isinstance(bitrate, int) or isinstance(bitrate, bool):
            raise ArgumentError("The bitrate is a whole number of bits per second.")
        name = secrets.token_urlsafe(9)
        try:
            call, answer = await WebCall.answer(
                self._engine,
                name,
                sdp,
                self._forget,
                bitrate=bitrate,
                dtx=self._dtx,
                stun=self._stun,
            )
        except BusyError as error:
            return refused_with(503, str(error), {"Retry-After": "10"})
        if await request.is_disconnected() or call.has_ended:
            # Who has gone meanwhile knows no name to hang up by.
            await call.close()
            return refused_with(503, "The call was over before it was answered.")
        self._calls[name] = call
        return JSONResponse({"type": "answer", "sdp": answer, "call": name})

    async def _hang_up(self, request: Request) -> Response:
        call = self._calls.get(request.path_params["name"])
        if call is None:
            return refused_with(404, "There is no such call, or it is over.")
        await call.close()
        return Response(status_code=204)

    async def _metrics(self, request: Request) -> Response:
        return Response(exposition(self._engine), headers={"Content-Type": CONTENT_TYPE})

    async def _view(self, socket: WebSocket) -> None:
        call = self._calls.get(socket.path_params["name"])
        if call is None or call.line is None or self._page.refusal(socket) is not None:
            await show(self._page, socket, None)
            return
        learning = None
        if self._knobs is not None:
            learning = self._knobs(call.line.path.stream.controls.board)
            await asyncio.to_thread(learning.listen)
        try:
            await show(self._page, socket, CallSubject(call, self._engine, learning))
        finally:
            if learning is not None:
                await asyncio.to_thread(learning.close)

    def _forget(self, call: WebCall) -> None:
        self._calls.pop(call.name, None)

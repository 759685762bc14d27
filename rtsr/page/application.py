"""The web application of every page: who gets in, the page itself, and answers as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from html import escape
from importlib import resources
from string import Template
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from rtsr.errors import RtsrError
from rtsr.page.access import Access

__all__ = ["Frame", "PageApplication", "refused_with"]

_log = logging.getLogger(__name__)

# No script, style or connection but the page's own.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; media-src 'self' blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_ASSETS = resources.files("rtsr.page").joinpath("assets")

Handler = Callable[[Request], Awaitable[Response]]
Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


class Frame:
    """What is written into ``index.html`` for one kind of page.

    Args:
        title: of the page, in its heading.
        script: file in ``assets`` that runs it.
        state: what stands under the heading until the script knows better.
        delay: caption of the table of delays.
        section: file in ``assets`` that stands before everything else.
    """

    def __init__(
        self, title: str, script: str, state: str, delay: str, section: str | None = None
    ) -> None:
        own = "" if section is None else _ASSETS.joinpath(section).read_text("utf-8")
        self.html = Template(_ASSETS.joinpath("index.html").read_text("utf-8")).substitute(
            title=title, script=script, state=state, delay=delay, section=own
        )


class PageApplication:
    """Makes an ASGI application that serves a page, its assets, and whatever routes come on top.

    Args:
        frame: the page.
        access: decides which requests are authorised.
    """

    def __init__(self, frame: Frame, access: Access) -> None:
        self._frame = frame
        self._access = access

    def build(self, routes: Sequence[BaseRoute], lifespan: Lifespan | None = None) -> Starlette:
        """Return the application with these routes besides the page's own."""
        return Starlette(
            routes=[
                Route("/", self._page),
                *routes,
                Mount("/page", _Assets(directory=str(_ASSETS))),
            ],
            lifespan=lifespan,
        )

    def refusal(self, connection: HTTPConnection, reads: bool = False) -> Response | None:
        """Return the response to an unauthorised request; ``None`` if it is authorised.

        Args:
            connection: a request or a WebSocket.
            reads: nothing is changed by it, so that it may come from anywhere.
        """
        headers = connection.headers
        if not self._access.knows_host(headers):
            return refused_with(
                421,
                "This server does not go by that name. Start rtsr with --listen and the address "
                "that was opened, or rtsr call web with --name.",
            )
        if not self._access.has_token(headers, connection.cookies):
            return refused_with(
                401, "Open the address that rtsr printed when it started; it carries the token."
            )
        if not reads and not self._access.is_same_origin(headers):
            return refused_with(403, "Only the page of this server may do that.")
        return None

    def guarded(self, handler: Handler, reads: bool = False) -> Handler:
        """Return the handler for authorised requests alone, whose errors become sentences."""

        async def guarded(request: Request) -> Response:
            refusal = self.refusal(request, reads)
            if refusal is not None:
                return refusal
            try:
                response = await handler(request)
            except RtsrError as error:
                return refused_with(400, str(error))
            except ClientDisconnect:
                # Nobody hears it any more.
                return refused_with(400, "The request did not come whole.")
            except Exception:
                _log.exception("a request failed")
                return refused_with(500, "Something went wrong here; the log knows what.")
            response.headers.update(_HEADERS)
            return response

        return guarded

    async def _page(self, request: Request) -> Response:
        given = request.query_params.get("token")
        named = self._access.knows_host(request.headers)
        if named and given is not None and self._access.is_token(given):
            answer: Response = RedirectResponse("/", 303, headers=_HEADERS)
            secure = request.url.scheme == "https"
            answer.set_cookie(
                self._access.cookie(request.headers),
                given,
                httponly=True,
                # From a link on another site a strict one would not be sent with the redirection.
                # What changes anything is guarded by its origin.
                samesite="lax",
                secure=secure,
                path="/",
            )
            return answer
        refusal = self.refusal(request, reads=True)
        if refusal is not None:
            return (
                _in_a_page(refusal) if "text/html" in request.headers.get("accept", "") else refusal
            )
        return Response(self._frame.html, media_type="text/html", headers=_HEADERS)


class _Assets(StaticFiles):
    """Files of the page; a browser asks each time whether they are still the same.

    Else it goes by their age, and for weeks shows a new page with the scripts of an old one.
    """

    def file_response(self, *arguments: Any, **more: Any) -> Response:
        response = super().file_response(*arguments, **more)
        response.headers.update({**_HEADERS, "Cache-Control": "no-cache"})
        return response


def _in_a_page(refusal: Response) -> Response:
    """Return a refusal as a browser's reader sees it."""
    sentence = json.loads(bytes(refusal.body))["error"]
    html = Template(_ASSETS.joinpath("refused.html").read_text("utf-8")).substitute(
        sentence=escape(sentence)
    )
    return Response(html, refusal.status_code, media_type="text/html", headers=_HEADERS)


def refused_with(
    status: int, sentence: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an answer that says why not."""
    return JSONResponse({"error": sentence}, status, headers={**_HEADERS, **(headers or {})})

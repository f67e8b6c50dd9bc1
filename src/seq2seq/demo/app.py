"""The web server of the demo: one page, and one question at a time."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from seq2seq.errors import UserError

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""The page may load nothing from anywhere."""

BYTES_PER_CHARACTER = 12
"""Of a text in JSON at most: a character beyond the first 65,536 may be written as two escapes of six bytes."""

Answer = Callable[[str], dict[str, Any]]


def make_app(
    answer: Answer,
    *,
    facts: Mapping[str, Any],
    max_characters: int,
    seconds: float,
    max_waiting: int,
    hosts: Sequence[str],
) -> Starlette:
    """Return the web application.

    Args:
        answer: Takes a text and returns what the page shows, as JSON; called by one thread, so once at a time. It
            raises `UserError` for a text that it cannot read.
        facts: What the page shows at first: ``about``, a line about the model; ``expects``, what its texts are;
            ``columns``, their number in a text, separated by tabs: the page has an input for each; and ``example``, a
            ``text`` with its ``answer``, or None.
        max_characters: Maximum length of a text.
        seconds: For a request, its time in the queue included.
        max_waiting: Number of requests that are answered or wait at a time; further ones are refused.
        hosts: Host names that a request may use, which keeps the pages of other sites out; ``*`` allows any.
    """
    page = files("seq2seq.demo").joinpath("page.html").read_text(encoding="utf-8")
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answer")
    waiting = 0

    async def predict(request: Request) -> Response:
        nonlocal waiting
        text = await read_text(request, max_characters, seconds)
        if waiting >= max_waiting:
            raise HTTPException(503, f"{max_waiting} texts are waiting already; try again in a moment")
        waiting += 1
        try:
            async with asyncio.timeout(seconds):
                found = await asyncio.get_running_loop().run_in_executor(worker, answer, text)
        except TimeoutError:
            raise HTTPException(504, f"no answer within {seconds:g} s; try again, or try a shorter text") from None
        except UserError as error:
            raise HTTPException(400, str(error)) from error
        finally:
            waiting -= 1
        return JSONResponse(found)

    async def refuse(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": getattr(error, "detail", "")}, getattr(error, "status_code", 500))

    about = JSONResponse({**facts, "max_characters": max_characters})
    constant = [Route("/", HTMLResponse(page), methods=["GET"]), Route("/about", about, methods=["GET"])]
    headers = Middleware(BaseHTTPMiddleware, dispatch=with_headers)
    return Starlette(
        routes=[*constant, Route("/predict", predict, methods=["POST"])],
        middleware=[headers, Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={HTTPException: refuse},
    )


async def with_headers(request: Request, respond: RequestResponseEndpoint) -> Response:
    """Send `HEADERS` with a response."""
    response = await respond(request)
    response.headers.update(HEADERS)
    return response


async def read_text(request: Request, max_characters: int, seconds: float) -> str:
    """Return the text of a request, JSON like ``{"text": ...}``; stop reading as soon as it is too long.

    Raises:
        HTTPException: If it is too long or not of this form.
    """
    if request.headers.get("Content-Type") != "application/json":  # which a page of another site cannot send
        raise HTTPException(415, "the request must be of the type application/json")
    limit = BYTES_PER_CHARACTER * max_characters + 100
    body = b""
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise HTTPException(413, f"a text has at most {max_characters} characters")
    except (TimeoutError, ClientDisconnect):
        raise HTTPException(408, "the request was not complete in time") from None
    try:
        text = json.loads(body)["text"]
        text.encode("utf-8")  # half of a surrogate pair is no text
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise HTTPException(400, 'the request must be {"text": "..."}') from None
    if len(text) > max_characters:
        raise HTTPException(413, f"a text has at most {max_characters} characters")
    return text

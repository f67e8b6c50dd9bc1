"""How the demo's connections are served: one request each, whose head must arrive in time."""

import asyncio

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol


def serving(app: Starlette, *, max_connections: int, seconds: float) -> uvicorn.Config:
    """Return how uvicorn serves an app.

    uvicorn waits forever for the rest of a request's head. Many connections that never send it would lock everybody
    else out, so that each is closed after a time. A connection ends with its response: no second head is waited for.

    Args:
        app: The app.
        max_connections: Further ones are answered 503.
        seconds: Time for the head of a request.
    """

    class InTime(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.deadline = self.loop.call_later(seconds, self.close_without_head)

        def close_without_head(self) -> None:
            if self.cycle is None:  # of request and response
                self.transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self.deadline.cancel()
            super().connection_lost(exc)

    return uvicorn.Config(
        app,
        http=InTime,
        headers=[("Connection", "close")],
        limit_concurrency=max_connections,
        log_level="warning",
        server_header=False,
    )

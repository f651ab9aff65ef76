"""The HTTP/1.1 side of every daemon: uvicorn's protocol with what it leaves open closed.

The parser (llhttp, by httptools) refuses most of what is used to smuggle requests. What it
lets through is refused here, before any app sees it: request targets that are no path,
trailers that would pass for headers, transfer codings nobody undoes, a head without end.
A client that sends or reads too slowly is cut off; answers that cannot be completed are
broken off so that no client takes them for whole; a client that is told to stop sending
gets to read why. And an app learns of a client that left by a call instead of a task.
"""

from shared.http1.cycle import SERVED, Served
from shared.http1.protocol import GuardedProtocol, make_protocol

__all__ = ["SERVED", "GuardedProtocol", "Served", "make_protocol"]

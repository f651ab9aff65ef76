"""A daemon on a real port beside the test, for clients that bring their own sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

# Longer than any start; a server that is not up by then never will be. Seconds.
START_S = 20.0


@contextmanager
def listening(app: FastAPI) -> Generator[str]:
    """Serves the app from a thread of its own; gives its base URL."""
    server = uvicorn.Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=0, http="httptools", log_config=None, access_log=False
        )
    )
    thread = threading.Thread(target=server.run, name="listening")
    thread.start()
    try:
        deadline = time.monotonic() + START_S
        while not server.started:
            assert thread.is_alive(), "the app did not start"
            assert time.monotonic() < deadline, "the app took too long to start"
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(START_S)

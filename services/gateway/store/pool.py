"""Keep-alive connections to one daemon, and the clock that ends what has gone quiet."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from urllib.parse import urlsplit

from services.gateway.store.connection import Connection
from shared.errors import Timeout, Unavailable
from shared.keepalive import IDLE_CONNECTION_S

MAX_IDLE = 64  # connections kept for later, per daemon
TICK_S = 0.5
# A connection used this recently is not asked whether it is still open. Seconds.
SURELY_OPEN_S = 0.001


class Pool:
    """Connections to one daemon.

    Args:
        daemon: its name, for messages.
        address: its base URL; a path in it is put before every target.
        connect_s: seconds that a connection may take to be made.
        first_byte_s: seconds that the daemon may take to answer once it has the request.
        between_s: seconds that may pass between two pieces of an answer.
    """

    def __init__(
        self,
        daemon: str,
        address: str,
        *,
        connect_s: float,
        first_byte_s: float,
        between_s: float,
    ) -> None:
        parts = urlsplit(address)
        self.daemon = daemon
        self.host = parts.hostname or "127.0.0.1"
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.port = parts.port or (443 if self.tls else 80)
        self.authority = parts.netloc.rpartition("@")[2].encode("ascii")
        self.base_path = parts.path.rstrip("/").encode("ascii")
        self.connect_s = connect_s
        self.first_byte_s = first_byte_s
        self.between_s = between_s
        self.active: set[Connection] = set()
        self._idle: list[Connection] = []
        self._closed = False

    def take_idle(self, now: float) -> Connection | None:
        """An open connection from before, the one used last, or None.

        Args:
            now: the event loop's time.
        """
        while self._idle:
            connection = self._idle.pop()
            idle_s = now - connection.idle_since
            if idle_s > IDLE_CONNECTION_S or (idle_s > SURELY_OPEN_S and connection.is_stale()):
                connection.abort()
                continue
            self.active.add(connection)
            return connection
        return None

    async def connect(self) -> Connection:
        """A new connection.

        Raises:
            Unavailable: nobody listens, or the host cannot be found.
            Timeout: no answer to the attempt in `connect_s`.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.connect_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self.daemon, loop, self._forget),
                    self.host,
                    self.port,
                    ssl=self.tls,
                )
        except TimeoutError:
            raise Timeout(
                f"{self.daemon} did not accept a connection in {self.connect_s:g} s. "
                "It is overloaded or its host is out of reach; try again shortly.",
                details={"daemon": self.daemon},
                headers={"Retry-After": "1"},
            ) from None
        except OSError:
            raise Unavailable(
                f"{self.daemon} is not running or cannot be reached. Start it with "
                "'scripts/fleet.py up', see 'scripts/fleet.py status', or try again shortly.",
                details={"daemon": self.daemon},
                headers={"Retry-After": "1"},
            ) from None
        self.active.add(connection)
        return connection

    def give_back(self, connection: Connection, now: float) -> None:
        """Ends the exchange on a connection: kept when it can carry another, else cut."""
        self.active.discard(connection)
        if connection.is_reusable() and len(self._idle) < MAX_IDLE and not self._closed:
            connection.end()
            connection.idle_since = now
            self._idle.append(connection)
        else:
            connection.abort()
            connection.end()

    def check_quiet(self) -> None:
        """Ends exchanges in which the daemon has been quiet too long. Called every `TICK_S`.

        Only waits for the daemon count: a client that is slow to take its answer is the
        server's matter.
        """
        for connection in tuple(self.active):
            if not connection.is_waiting():
                continue
            connection.quiet_ticks += 1
            quiet_s = (connection.quiet_ticks - 1) * TICK_S
            if connection.head_ready:
                if quiet_s >= self.between_s:
                    connection.fail(self._quiet("sent nothing further", quiet_s))
            elif quiet_s >= self.first_byte_s:
                connection.fail(self._quiet("did not answer", quiet_s))

    def close(self) -> None:
        """Cuts idle connections; those in use end with their exchange."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    def _forget(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def _quiet(self, what: str, seconds: float) -> Timeout:
        return Timeout(
            f"{self.daemon} {what} for {seconds:.0f} s. Whether the request took effect is "
            "not known here; look before you send it again.",
            details={"daemon": self.daemon},
        )


class QuietClock:
    """Ticks over all pools while they are open: one timer instead of one per request."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        self._pools = tuple(pools)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins to tick on the running loop."""
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def stop(self) -> None:
        """Ticks no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        for pool in self._pools:
            pool.check_quiet()
        self.start()

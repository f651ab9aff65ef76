"""Calls to the S3 server: tried again while that may help, their failures told as ours.

botocore's own retries are off: they know neither the request's deadline nor that a write
which seems to have failed may have been done. A call is tried again after connections that
break, silence, 5xx answers and requests to slow down, with growing, random waits, until
`retry_s` or the deadline is over. Once a call has failed for all of `retry_s`, those after it
try once until one succeeds, so that callers hear at once of a server that is away.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import boto3
from botocore.config import Config as BotoConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from shared import context
from shared.errors import InsufficientStorage, LakehouseError, TooLarge, Unavailable
from shared.s3keys import S3Keys
from shared.sections.storage import StorageSection

logger = logging.getLogger("lakehouse.storaged")

# The first wait before another try, doubled each time up to the second. Seconds.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 2.0
# How long /ready waits for the server.
CHECK_S = 2.0
_AGAIN = frozenset(
    {
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
_FULL = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"})

T = TypeVar("T")


class Refused(Exception):
    """The server's answer to a call that trying again does not help: `code` and `status`."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.code = code
        self.status = status


class S3Calls:
    """A client of one bucket.

    Args:
        section: which server and bucket, and how long to wait.
        keys: what signs requests.
        connections: kept open at once.
    """

    def __init__(self, section: StorageSection, keys: S3Keys, connections: int) -> None:
        self.bucket = section.bucket
        self.retry_s = section.retry_s
        self._lock = threading.Lock()
        self._away = False
        self.client: Any = _make_client(
            endpoint_url=section.endpoint or None,
            region_name=section.region,
            aws_access_key_id=keys.access,
            aws_secret_access_key=keys.secret,
            aws_session_token=keys.token or None,
            config=BotoConfig(
                connect_timeout=section.connect_timeout_s,
                read_timeout=section.read_timeout_s,
                max_pool_connections=connections,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path" if section.path_style else "virtual"},
                # Bodies are signed, so the server checks them; not every one knows checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                tcp_keepalive=True,
            ),
        )

    def run(self, operation: str, *, patience_s: float | None = None, **arguments: Any) -> Any:
        """One operation on the bucket by boto3's name, tried again while that may help.

        Args:
            patience_s: in place of `retry_s`.

        Raises:
            Refused: the server said no.
            Unavailable: it cannot be asked.
        """
        method = getattr(self.client, operation)
        return self.attempt(lambda: method(Bucket=self.bucket, **arguments), patience_s)

    def attempt(self, call: Callable[[], T], patience_s: float | None = None) -> T:
        """A call of botocore, tried again as `run` does."""
        patience = self._choose_patience(patience_s)
        until = time.monotonic() + patience
        wait = FIRST_WAIT_S
        while True:
            try:
                answer = call()
            except (BotoCoreError, ClientError, OSError) as error:
                failure = error
                if not may_help(error):
                    raise translate(error) from error
            else:
                self._note(away=False)
                return answer
            pause = random.uniform(wait / 2, wait)
            if time.monotonic() + pause > until:
                if patience >= self.retry_s:
                    self._note(away=True)
                raise unreachable(failure) from failure
            time.sleep(pause)
            wait = min(wait * 2, LONGEST_WAIT_S)

    def check(self) -> str:
        """ "ok", or why the bucket cannot be used; for /ready."""
        try:
            self.run("head_bucket", patience_s=0.0)
        except Refused as refused:
            if refused.status == 404:
                return "the bucket does not exist. Create it, or name another in [storage]"
            return f"the S3 server refuses the bucket ({refused.code})"
        except LakehouseError as error:
            return error.message
        return "ok"

    def _choose_patience(self, asked_s: float | None) -> float:
        patience = self.retry_s if asked_s is None else asked_s
        left = context.remaining_s()
        if left is not None:
            # A little of it stays for telling the caller.
            patience = min(patience, left * 0.9)
        return 0.0 if self._away else patience

    def _note(self, *, away: bool) -> None:
        with self._lock:
            before, self._away = self._away, away
        if before and not away:
            logger.info("The S3 server answers again")
        elif away and not before:
            logger.warning("The S3 server does not answer")


# A session reads megabytes of descriptions of S3 for its first client, and makes one at a time.
_SESSION, _SESSION_LOCK = boto3.session.Session(), threading.Lock()


def _make_client(**settings: Any) -> Any:
    with _SESSION_LOCK:
        return _SESSION.client("s3", **settings)


def may_help(error: Exception) -> bool:
    """Whether the same call may do better a moment later."""
    if isinstance(error, ClientError):
        code, status = read_answer(error)
        return code in _AGAIN or status == 429 or (status >= 500 and status not in (501, 507))
    # What broke on its way, as against requests that could not be made at all.
    return isinstance(error, BotoConnectionError | HTTPClientError | IncompleteReadError | OSError)


def translate(error: Exception) -> Exception:
    """The exception for a call that is not tried again."""
    if not isinstance(error, ClientError):
        return unreachable(error)
    code, status = read_answer(error)
    if code in _FULL or status == 507:
        return InsufficientStorage(
            "The S3 server behind storaged is full. Nothing was stored; delete objects, or give "
            "it more room."
        )
    if code == "EntityTooLarge":
        return TooLarge("The S3 server behind storaged takes no object of this size.")
    if status in (401, 403) or code == "NoSuchBucket":
        logger.error("The S3 server refused a call: %s", code)
        return Unavailable(
            f"The S3 server behind storaged refuses it ({code}). Its operator has to look at "
            "[storage]: the bucket, the key and its rights.",
            headers={"Retry-After": "30"},
        )
    return Refused(code, status)


def read_answer(error: ClientError) -> tuple[str, int]:
    """The code and the HTTP status of an error answer."""
    response: Mapping[str, Any] = error.response
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return str(response.get("Error", {}).get("Code", "")), status


def unreachable(error: Exception) -> Unavailable:
    """What a caller hears when the server could not be asked in time."""
    reason = read_answer(error)[0] if isinstance(error, ClientError) else type(error).__name__
    return Unavailable(
        f"The S3 server behind storaged does not serve ({reason}). Nothing was acknowledged; "
        "send the same request again.",
        details={"reason": reason},
        headers={"Retry-After": "5"},
    )

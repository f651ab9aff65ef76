"""Headers on their way through: what is dropped, what is put in, how a body is framed.

Hop-by-hop fields (RFC 9110 §7.6.1) belong to one connection and stop here, both ways, with
every field that a `Connection` header names. Repeated fields stay repeated, in order. The
client's credentials were for this gateway and stop here too; daemons get the fleet's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shared.errors import Invalid

Headers = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)

# Written anew for every hop, so the client's own are never sent on beside ours.
_REPLACED = frozenset(
    {
        b"host",
        b"content-length",
        b"expect",
        b"authorization",
        b"x-api-key",
        b"x-forwarded-for",
        b"x-request-id",
        b"x-deadline-ms",
    }
)
_REQUEST_SPECIAL = HOP_BY_HOP | _REPLACED

# The gateway's server writes these on each of its own answers.
RESPONSE_DROPPED = HOP_BY_HOP | {b"x-request-id"}


class RequestPlan:
    """One request as it goes upstream, short of its first line.

    Attributes:
        lines: header lines to pass on, each with its CRLF.
        length: the declared body length in bytes; None when there is none.
        chunked: the body comes in chunks, its length unknown.
        expects_continue: the client waits for `100 Continue` before it sends its body.
        has_deadline: the client said how long it will wait.
        forwarded_for: the `X-Forwarded-For` that came in; empty when none did.
    """

    __slots__ = ("chunked", "expects_continue", "forwarded_for", "has_deadline", "length", "lines")

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.length: int | None = None
        self.chunked = False
        self.expects_continue = False
        self.has_deadline = False
        self.forwarded_for = b""

    @property
    def has_body(self) -> bool:
        """Whether body bytes follow the head."""
        return self.chunked or bool(self.length)


def plan_request(headers: Headers) -> RequestPlan:
    """Sorts a request's headers into what is passed on and what this hop decides itself.

    Args:
        headers: lower-cased names and values, as ASGI gives them.

    Raises:
        Invalid: the framing is ambiguous (RFC 9112 §6.3): a second length, a length that is
            no number, a length beside a transfer coding, a coding other than chunked.
    """
    plan = RequestPlan()
    lines = plan.lines
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name in _REQUEST_SPECIAL:
            if name == b"content-length":
                if plan.length is not None or not value.isdigit():
                    raise Invalid("Send exactly one Content-Length, a plain decimal number.")
                plan.length = int(value)
            elif name == b"transfer-encoding":
                if plan.chunked or value.strip().lower() != b"chunked":
                    raise Invalid("The only transfer coding understood here is 'chunked'.")
                plan.chunked = True
            elif name == b"connection":
                named |= connection_tokens(value)
            elif name == b"expect":
                plan.expects_continue = value.lower() == b"100-continue"
            elif name == b"x-deadline-ms":
                plan.has_deadline = True
            elif name == b"x-forwarded-for":
                before = plan.forwarded_for
                plan.forwarded_for = before + b", " + value if before else value
        elif not name.startswith(b"proxy-"):
            lines.append(b"%b: %b\r\n" % (name, value))
    if plan.chunked and plan.length is not None:
        raise Invalid("Send Content-Length or Transfer-Encoding, not both.")
    if named:
        plan.lines = [line for line in lines if line[: line.index(b":")] not in named]
    return plan


def write_head(
    *,
    method: bytes,
    target: bytes,
    fixed: bytes,
    own: Iterable[bytes],
    plan: RequestPlan,
    body: bytes | None,
) -> bytes:
    """The whole request head, ready to be written.

    Args:
        method: the method.
        target: path and query, byte for byte as they are to arrive.
        fixed: header lines that are the same for every request to this daemon.
        own: header lines of this hop for this request.
        plan: the client's headers.
        body: the complete body when it is in hand, which is then framed by its length
            whatever the client did; None when it follows piece by piece, or there is none.

    Raises:
        Invalid: a line break, NUL or blank got into a place where it would split the
            request in two. The server's parser refuses these; this holds if it did not.
    """
    lines = [b"%b %b HTTP/1.1\r\n" % (method, target), fixed, *own, *plan.lines]
    if body is not None:
        if body or plan.length is not None or plan.chunked:
            lines.append(b"content-length: %d\r\n" % len(body))
    elif plan.chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif plan.length is not None:
        lines.append(b"content-length: %d\r\n" % plan.length)
    if plan.expects_continue and body is None:
        lines.append(b"expect: 100-continue\r\n")
    lines.append(b"\r\n")
    head = b"".join(lines)
    # `fixed` may be several lines, so its breaks are counted rather than assumed.
    breaks = len(lines) - 1 + fixed.count(b"\n")
    if (
        head.count(b"\n") != breaks
        or head.count(b"\r") != breaks
        or b"\x00" in head
        or b" " in target
    ):
        raise Invalid("The request holds a line break, blank or NUL where none may be.")
    return head


def connection_tokens(value: bytes) -> frozenset[bytes]:
    """The field names that one `Connection` header marks as this hop's own."""
    tokens = (token.strip().lower() for token in value.split(b","))
    return frozenset(token for token in tokens if token)


def drop_named(headers: Headers, connection: bytes) -> list[tuple[bytes, bytes]]:
    """Response headers without those that its `Connection` header names."""
    named = connection_tokens(connection)
    return [pair for pair in headers if pair[0] not in named]


def is_idempotent(method: str) -> bool:
    """Whether doing a request twice is the same as doing it once (RFC 9110 §9.2.2)."""
    return method in _IDEMPOTENT


_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})

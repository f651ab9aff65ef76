"""What all surfaces share: the head of an answer, and how streams are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from services.chatd.core.chat import Event, Image, Usage
from services.chatd.core.reading import write_json
from shared.errors import Invalid, LakehouseError


class Head(NamedTuple):
    """What an answer carries beside its content.

    Attributes:
        id: hexadecimal; each protocol puts its own prefix before it.
        created: seconds since 1970.
        model: a name that can be asked for again.
        provider: who answers.
    """

    id: str
    created: int
    model: str
    provider: str


class Writer(Protocol):
    """Writes one streamed answer. Each method gives the bytes to send, maybe none."""

    def begin(self) -> bytes:
        """What comes before the first event."""
        ...

    def write(self, events: Sequence[Event]) -> bytes:
        """Events, Finish and Usage among them."""
        ...

    def end(self) -> bytes:
        """What comes after the last event."""
        ...

    def fail(self, error: LakehouseError, request_id: str) -> bytes:
        """What takes the place of the rest when the answer breaks off."""
        ...


def frame(body: object, name: str = "") -> bytes:
    """A server-sent event."""
    data = write_json(body)
    if name:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
    return b"data: %b\n\n" % data


def read_image(url: str) -> Image:
    """An image from its URL; data: URLs are taken apart.

    Raises:
        Invalid: it is no http(s) URL and no base64 data.
    """
    if url.startswith(("http://", "https://")):
        return Image(url=url)
    head, comma, data = url.partition(",")
    if head.startswith("data:") and head.endswith(";base64") and comma:
        return Image(media_type=head[5:-7], data=data)
    raise Invalid(
        "An image is an http(s) URL, or data:<type>;base64,<data>.", details={"field": "messages"}
    )


def known_usage(usage: Usage | None) -> Usage:
    """The usage; dispatch has put one in wherever a provider told none."""
    return usage if usage is not None else Usage(0, 0, estimated=True)


def refuse(field: str, why: str) -> Invalid:
    """A field that asks for what there is not."""
    return Invalid(f"{field}: {why}", details={"field": field})


def drop_none(body: dict[str, Any]) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in body.items() if value is not None}

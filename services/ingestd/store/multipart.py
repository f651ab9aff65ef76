"""The files of a multipart form, as a stream: nothing is held or spooled elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from email.message import Message

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from services.ingestd.core.naming import name_file
from services.ingestd.core.reference import check_count
from shared.errors import Invalid
from shared.wire.ingestd import FILE_FIELD

# What browsers and clients call the field when it takes several.
_FIELDS = frozenset({FILE_FIELD, "files"})


class FileFields:
    """Takes a form apart and gives the names and bytes of its files.

    Args:
        boundary: between its fields.
        most: files that it may have.

    Raises (from `feed` and `finish`):
        Invalid: another field, too many files, no file, or no well-formed form.
    """

    def __init__(self, boundary: bytes, most: int) -> None:
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._read_header_name,
                "on_header_value": self._read_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._check_part,
                "on_part_data": self._read_data,
                "on_end": self._end,
            },
        )
        self._most = most
        self._headers = Message()
        self._name = b""
        self._value = b""
        self._files = 0
        self._ended = False
        self._found: list[str | bytes] = []

    def feed(self, piece: bytes) -> list[str | bytes]:
        """What is in the next piece of the form: a name where a file begins, and its bytes."""
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise Invalid(f"The multipart form is not well formed: {error}.") from None
        found, self._found = self._found, []
        return found

    def finish(self) -> None:
        """Checks that the form came to its end and held a file."""
        if not self._ended:
            raise Invalid("The multipart form breaks off before its last boundary. Send it again.")
        if not self._files:
            raise Invalid(f"The multipart form has no field {FILE_FIELD!r}.")

    def _begin_part(self) -> None:
        self._headers = Message()

    def _read_header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _read_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1")] = self._value.decode("latin-1")
        self._name = self._value = b""

    def _check_part(self) -> None:
        name = self._headers.get_param("name", header="content-disposition")
        if name not in _FIELDS:
            raise Invalid(
                f"The multipart form has a field {str(name)[:60]!r}; only {FILE_FIELD!r} is read, "
                "once for each file. Options go into the query."
            )
        self._files += 1
        check_count(self._files, self._most)
        self._found.append(name_file(self._headers.get_filename(), self._files))

    def _read_data(self, data: bytes, start: int, end: int) -> None:
        self._found.append(data[start:end])

    def _end(self) -> None:
        self._ended = True


async def read_files(
    pieces: AsyncIterator[bytes], boundary: bytes, most: int
) -> AsyncGenerator[str | bytes]:
    """The files of a form that is being received: the name of each, then its bytes.

    Raises:
        Invalid: see `FileFields`.
    """
    fields = FileFields(boundary, most)
    async for piece in pieces:
        for found in fields.feed(piece):
            yield found
    fields.finish()

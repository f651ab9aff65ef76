"""The one file of a multipart form, as a stream: nothing is held or spooled elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from email.message import Message

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from shared.errors import Invalid
from shared.wire.ingestd import FILE_FIELD


class FileField:
    """Takes a form apart and gives the bytes of its field `file`.

    Raises (from `feed` and `finish`):
        Invalid: another field, a second file, no file, or no well-formed form.
    """

    def __init__(self, boundary: bytes) -> None:
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
        self._headers = Message()
        self._name = b""
        self._value = b""
        self._files = 0
        self._ended = False
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The file's bytes in the next piece of the form."""
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise Invalid(f"The multipart form is not well formed: {error}.") from None
        data, self._data = self._data, []
        return data

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
        if name != FILE_FIELD:
            raise Invalid(
                f"The multipart form has a field {str(name)[:60]!r}; only {FILE_FIELD!r} is read. "
                "Options go into the query."
            )
        self._files += 1
        if self._files > 1:
            raise Invalid(f"The multipart form has more than one field {FILE_FIELD!r}. Send one.")

    def _read_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end(self) -> None:
        self._ended = True


async def read_file_field(pieces: AsyncIterator[bytes], boundary: bytes) -> AsyncGenerator[bytes]:
    """The bytes of the field `file` in a form that is being received.

    Raises:
        Invalid: see `FileField`.
    """
    field = FileField(boundary)
    async for piece in pieces:
        for data in field.feed(piece):
            yield data
    field.finish()

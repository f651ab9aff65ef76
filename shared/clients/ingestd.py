"""Client of ingestd: a file becomes part of a dataset."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path

import anyio
import httpx

from shared.clients.base import ServiceClient
from shared.config import Config
from shared.wire.ingestd import INGEST_PATH, Contract, IngestResult, Mode

# Pieces in which files are read for sending. Bytes.
PIECE = 1024 * 1024


class IngestdClient(ServiceClient):
    """Talks to ingestd.

    Args:
        config: for the address and the token.
        transports: in-process transports by service name, in place of the network.
    """

    def __init__(
        self, config: Config, transports: Mapping[str, httpx.AsyncBaseTransport] | None = None
    ) -> None:
        super().__init__(config, "ingestd", transports)
        self._timeout_s = config.ingestd.request_timeout_s

    async def ingest(
        self,
        dataset: str,
        source: bytes | Path | AsyncIterator[bytes],
        *,
        mode: Mode = "append",
        contract: Contract = "freeze",
        content_type: str = "application/octet-stream",
        **options: str,
    ) -> IngestResult:
        """Adds a file's rows to a dataset, or puts them in place of all others.

        Safe to send again after any failure: the same input is taken once.

        Args:
            dataset: its name; it is made when there is none.
            source: the bytes, a file to read, or an iterator of pieces.
            mode: append or replace.
            contract: what becomes of columns and values that do not go with the dataset.
            content_type: of the body, where more is to be said than its bytes say.
            options: format, header, delimiter, quote, escape, encoding.

        Raises:
            Conflict: the file does not go with the dataset; the details name each column.
            Unprocessable: no row of the file can be used.
            Invalid, UnsupportedMediaType, TooLarge, InsufficientStorage: refused.
        """
        headers = {"content-type": content_type}
        content: bytes | AsyncIterator[bytes]
        if isinstance(source, Path):
            headers["content-length"] = str((await anyio.Path(source).stat()).st_size)
            content = _read_file(source)
        else:
            content = source
        response = await self.request(
            "POST",
            INGEST_PATH,
            params={"dataset": dataset, "mode": mode, "contract": contract, **options},
            headers=headers,
            content=content,
            timeout_s=self._timeout_s,
        )
        return IngestResult.model_validate_json(response.content)


async def _read_file(path: Path) -> AsyncGenerator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(PIECE):
            yield piece

"""What the routes call: one method each, bodies in, answers out, the work in threads."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.vectord.core.records import Delete
from services.vectord.store.registry import Registry
from shared.errors import Invalid, NotAcceptable, NotFound, TooLarge, UnsupportedMediaType
from shared.filters.language import parse_filter
from shared.wire.vectord import (
    ARROW_STREAM,
    ArrowOptions,
    DeleteItems,
    ItemsDeleted,
    ItemsWritten,
)

if TYPE_CHECKING:
    from services.vectord.store.keeper import Keeper

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body with what its headers say of it and of the answer wanted."""

    content: bytes
    content_type: str
    accept: str = ""

    @property
    def is_arrow(self) -> bool:
        """Whether it is an Arrow stream.

        Raises:
            UnsupportedMediaType: it is neither that nor JSON.
        """
        kind = self.content_type.partition(";")[0].strip().lower()
        if kind == ARROW_STREAM:
            return True
        if kind in (JSON, "", "application/x-www-form-urlencoded"):
            return False
        raise UnsupportedMediaType(f"Send {JSON} or {ARROW_STREAM}, not {kind}.")

    @property
    def wants_arrow(self) -> bool:
        """Whether the answer should be an Arrow stream.

        Raises:
            NotAcceptable: neither that nor JSON is accepted.
        """
        accepted = [part.partition(";")[0].strip().lower() for part in self.accept.split(",")]
        if ARROW_STREAM in accepted:
            return True
        if {"", "*/*", "application/*", JSON} & set(accepted):
            return False
        raise NotAcceptable(f"Answers are {JSON} or {ARROW_STREAM}.")


class Service:
    """The items and searches of all indexes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._section = registry.section
        self._modules: dict[str, Any] = {}

    async def put_items(self, name: str, body: Body, model: str | None) -> ItemsWritten:
        """Writes items; durable and visible on return."""
        keeper = self._registry.find(name)
        keeper.opened()
        items = self._module("items")
        pool = self._registry.pools.write
        if body.is_arrow:
            upsert, duplicates = await pool.run(
                items.read_arrow_items, keeper.spec, self._section, body.content, model
            )
        else:
            upsert, duplicates = await pool.run(
                items.read_items, keeper.spec, self._section, body.content
            )
        written = await keeper.write(upsert) if upsert.ids else 0
        return ItemsWritten(written=written, duplicates=duplicates, count=keeper.view().live)

    async def delete_items(self, name: str, request: DeleteItems) -> ItemsDeleted:
        """Removes items by id or by filter; durable on return."""
        keeper = self._registry.find(name)
        keeper.opened()
        if (request.ids is None) == (request.filter is None):
            raise Invalid("Say which items to delete: give either ids or filter.")
        if request.ids is not None:
            if len(request.ids) > self._section.max_items:
                raise TooLarge(f"{len(request.ids)} ids; at most {self._section.max_items}.")
            work = Delete(list(dict.fromkeys(request.ids)))
            deleted = await keeper.write(work) if work.ids else 0
        else:
            deleted = await keeper.write(parse_filter(request.filter))
        return ItemsDeleted(deleted=deleted, count=keeper.view().live)

    async def get_item(self, name: str, item: str) -> bytes:
        """One item as JSON.

        Raises:
            NotFound: the index has no such item.
        """
        view = self._registry.find(name).view()
        row = view.find(item)
        if row is None:
            raise NotFound(
                f"Index {name!r} has no item {item!r}.", details={"index": name, "id": item}
            )
        answers = self._module("answers")
        return answers.render_item(view, row)

    async def search(self, name: str, body: Body, options: ArrowOptions) -> tuple[bytes, str]:
        """Answers one query or a batch; gives the body and its media type."""
        keeper = self._registry.find(name)
        keeper.opened()
        is_arrow, wants_arrow = body.is_arrow, body.wants_arrow
        self._module("items")
        self._module("search")
        self._module("answers")
        content, count = await self._registry.pools.search.run(
            self._search, keeper, body.content, options, is_arrow, wants_arrow
        )
        self._registry.figures.queries.inc(count)
        return content, ARROW_STREAM if wants_arrow else JSON

    async def find_candidates(self, name: str, body: Body) -> bytes:
        """Dense and lexical hits of each query as one, with both scores; JSON in and out."""
        keeper = self._registry.find(name)
        keeper.opened()
        if body.is_arrow or body.wants_arrow:
            raise UnsupportedMediaType(f"Candidates are asked for and answered as {JSON}.")
        for module in ("items", "candidates", "answers"):
            self._module(module)
        content, count = await self._registry.pools.search.run(
            self._find_candidates, keeper, body.content
        )
        self._registry.figures.queries.inc(count)
        return content

    def _find_candidates(self, keeper: Keeper, content: bytes) -> tuple[bytes, int]:
        items, candidates, answers = (self._modules[m] for m in ("items", "candidates", "answers"))
        spec, section = keeper.spec, self._section
        view = keeper.view()
        request = items.read_model(items.SearchRequest, content)
        asks = items.to_asks(spec, section, request)
        found = candidates.find_candidates(view, spec.metric, asks, section.search_threads)
        queries = request.queries or [request]
        rendered = [
            candidates.render_candidates(view, one, query.include)
            for one, query in zip(found, queries, strict=True)
        ]
        answer = {"count": view.live, "results": rendered}
        return answers.encode_json(answer), len(asks)

    def _search(
        self, keeper: Keeper, content: bytes, options: ArrowOptions, is_arrow: bool, arrow: bool
    ) -> tuple[bytes, int]:
        items, search, answers = (self._modules[m] for m in ("items", "search", "answers"))
        spec, section = keeper.spec, self._section
        view = keeper.view()
        if is_arrow:
            asks = items.read_arrow_asks(
                spec,
                section,
                content,
                k=options.k,
                ef=options.ef,
                filter_json=options.filter,
                model=options.model,
            )
            batch, includes = True, [options.include] * len(asks)
        else:
            request = items.read_model(items.SearchRequest, content)
            asks = items.to_asks(spec, section, request)
            batch = request.queries is not None
            includes = [q.include for q in request.queries or [request]]
        found = search.search_view(view, spec.metric, asks, section.search_threads)
        if arrow:
            wanted = options.include if is_arrow else includes[0]
            return answers.encode_arrow(view, found, wanted), len(asks)
        rendered = [
            answers.render_found(view, one, include)
            for one, include in zip(found, includes, strict=True)
        ]
        answer = {"results": rendered} if batch else rendered[0]
        return answers.encode_json(answer), len(asks)

    def _module(self, name: str) -> Any:
        module = self._modules.get(name)
        if module is None:
            module = importlib.import_module(f"services.vectord.store.{name}")
            self._modules[name] = module
        return module

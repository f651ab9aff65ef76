"""What every provider of vectors gives, wherever it computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from services.embedd.core.lru import Entry
from services.embedd.core.names import Wanted
from services.embedd.store.figures import LaneFigures
from services.embedd.store.lane import Lane
from shared.wire.embedd import EmbedModel


class Model(NamedTuple):
    """A model that was found.

    `id` is what is stored with its vectors; `name` is its name at the provider; `recipe`
    is all that changes a vector beside the text.
    """

    id: str
    name: str
    dimensions: int | None
    recipe: tuple[str, ...]


class Provider(Protocol):
    """One table of [embedd.providers]."""

    name: str

    @property
    def models(self) -> tuple[str, ...]:
        """Models that the configuration names, the default first."""
        ...

    async def start(self) -> None:
        """What is to be done before the first request."""
        ...

    async def resolve(self, wanted: Wanted, dimensions: int | None) -> Model:
        """The model behind a name.

        Raises:
            NotFound: there is none, or not with the wanted hash.
            Invalid: it does not give these dimensions.
            Unavailable: whoever knows does not answer.
        """
        ...

    def make_lane(
        self, model: Model, keep: Callable[[bytes, Entry], None], figures: LaneFigures
    ) -> Lane[Any]:
        """A line of work to the model."""
        ...

    async def describe(self) -> list[EmbedModel]:
        """Its models as `GET /embed/models` shows them."""
        ...

    async def check(self) -> str:
        """ "ok" when it answers, else the reason."""
        ...

    async def aclose(self) -> None:
        """Lets go of threads and connections."""
        ...

"""What an answer cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from services.chatd.core.chat import Usage

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens; `pattern` is `provider/model` with `*` and `?`."""

    pattern: str
    input: float
    output: float
    cached: float
    cache_written: float


class PriceTable:
    """Prices in the order of the table; the first whose pattern fits is used."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._prices = tuple(prices)

    def cost(self, provider: str, model: str, usage: Usage) -> float | None:
        """US dollars. What the provider told wins; None where nobody knows, never 0."""
        if usage.cost is not None:
            return usage.cost
        name = f"{provider}/{model}"
        for price in self._prices:
            if fnmatchcase(name, price.pattern):
                plain = max(0, usage.input - usage.cached - usage.cache_written)
                dollars = (
                    plain * price.input
                    + usage.cached * price.cached
                    + usage.cache_written * price.cache_written
                    + usage.output * price.output
                )
                return round(dollars / MILLION, 9)
        return None

"""The providers that the configuration names, with their keys."""

from __future__ import annotations

import logging
import secrets

from services.chatd.core.pricing import Price, PriceTable
from services.chatd.core.redaction import Redactor
from services.chatd.store.provider import Place, Provider
from shared.config import Config
from shared.errors import Unavailable
from shared.keyfile import read_key
from shared.sections.chat import ChatdSection, ChatProvider

logger = logging.getLogger("lakehouse.chatd")


def build_providers(config: Config) -> dict[str, Provider]:
    """One provider per table of [chatd.providers]; nothing is connected yet.

    Reads the key files: one that is missing, empty or open to others leaves its provider
    unregistered.
    """
    section = config.chatd
    places = {name: _place(name, each, config) for name, each in section.providers.items()}
    redactor = Redactor([config.token, *(place.key for place in places.values())])
    return {
        name: Provider(name, each, section, places[name], redactor, make_call_id)
        for name, each in section.providers.items()
    }


def build_prices(section: ChatdSection) -> PriceTable:
    """The price table."""
    return PriceTable(
        Price(
            pattern,
            price.input,
            price.output,
            price.input if price.cached is None else price.cached,
            price.input if price.cache_written is None else price.cache_written,
        )
        for pattern, price in section.prices.items()
    )


def make_call_id() -> str:
    """An id for a tool call whose provider gave none."""
    return f"call_{secrets.token_hex(12)}"


def _place(name: str, section: ChatProvider, config: Config) -> Place:
    if section.daemon:
        # A daemon of this fleet asks for the fleet's token; a stranger must never see it.
        return Place(config.daemon(section.daemon).address, config.token)
    address = section.url.rstrip("/")
    if not section.key:
        return Place(address)
    file = f"{name}.env"
    try:
        return Place(address, read_key(config.base_dir / config.chatd.keys_dir / file, section.key))
    except Unavailable as error:
        logger.info("The chat provider %s is not registered: %s", name, error.message)
        return Place(
            address,
            missing=f"{error.message} The file is {file} in chatd.keys_dir, with "
            f"{section.key}=<key> in it; restart chatd then.",
        )

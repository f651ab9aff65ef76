"""The modules of this room that bring numpy with them, loaded when first needed.

A daemon without traces costs its neighbours little that way.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

_loaded: dict[str, Any] = {}


async def load_room(name: str) -> Any:
    """A module of `services.pathwayd.store`; the first time it is loaded in a thread."""
    module = _loaded.get(name)
    if module is None:
        # What other tasks find in sys.modules meanwhile may be half made.
        module = await asyncio.to_thread(importlib.import_module, f"services.pathwayd.store.{name}")
        _loaded[name] = module
    return module

"""The models that are there, and how Ollama describes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import Invalid, NotFound

# Everything that a real server stamps with the time; fixed, so that the same request has the
# same answer.
TIME = "2025-01-01T00:00:00Z"
EXPIRES = "2025-01-01T00:05:00Z"
CREATED = 1_735_689_600
VERSION = "0.13.0"


@dataclass(frozen=True)
class PretendModel:
    """One model. `name` has its tag."""

    name: str
    capabilities: frozenset[str]
    context_length: int
    embedding_length: int

    @property
    def digest(self) -> str:
        """A hash of everything that it is, as a registry's digest would be."""
        facts = f"{self.name} {sorted(self.capabilities)} {self.context_length}"
        return hashlib.sha256(f"{facts} {self.embedding_length}".encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes that it would take."""
        return 1_000_000 + self.embedding_length * 1000

    def details(self) -> dict[str, Any]:
        """The `details` of lists."""
        return {
            "parent_model": "",
            "format": "gguf",
            "family": "fake",
            "families": ["fake"],
            "parameter_size": "1M",
            "quantization_level": "F32",
        }

    def listed(self) -> dict[str, Any]:
        """Its entry in /api/tags."""
        return {
            "name": self.name,
            "model": self.name,
            "modified_at": TIME,
            "size": self.size,
            "digest": self.digest,
            "details": self.details(),
        }

    def running(self) -> dict[str, Any]:
        """Its entry in /api/ps."""
        return {
            "name": self.name,
            "model": self.name,
            "size": self.size,
            "digest": self.digest,
            "details": self.details(),
            "expires_at": EXPIRES,
            "size_vram": 0,
            "context_length": self.context_length,
        }

    def shown(self) -> dict[str, Any]:
        """The answer of /api/show."""
        return {
            "license": "Apache-2.0",
            "modelfile": f"# Modelfile of {self.name}\nFROM {self.name}\n",
            "parameters": "",
            "template": "{{ .Prompt }}",
            "details": self.details(),
            "model_info": {
                "general.architecture": "fake",
                "general.parameter_count": 1_000_000,
                "fake.context_length": self.context_length,
                "fake.embedding_length": self.embedding_length,
            },
            "capabilities": sorted(self.capabilities),
            "modified_at": TIME,
        }


class Catalogue:
    """Models by name, a name without a tag meaning `:latest`."""

    def __init__(self, models: Mapping[str, PretendModel]) -> None:
        self.models = dict(models)

    def find(self, name: str) -> PretendModel:
        """The model.

        Raises:
            Invalid: no name. NotFound: no such model; both in Ollama's words.
        """
        if not name:
            raise Invalid("model is required")
        tagged = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
        model = self.models.get(tagged)
        if model is None:
            raise NotFound(f"model '{name}' not found")
        return model

    def find_able(self, name: str, capability: str, what: str) -> PretendModel:
        """The model, if it can do this.

        Raises:
            Invalid: it cannot.
        """
        model = self.find(name)
        if capability not in model.capabilities:
            raise Invalid(f'"{name}" does not support {what}')
        return model

    def check_tools(self, model: PretendModel) -> None:
        """Refuses tools where the model was not made for them, with the name in full.

        Raises:
            Invalid: it was not.
        """
        if "tools" not in model.capabilities:
            raise Invalid(f"registry.ollama.ai/library/{model.name} does not support tools")

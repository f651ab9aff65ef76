"""Modes: what a node can do. One table; a further mode is one entry in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from services.observerd.core.workflow.keys import hash_json
from services.observerd.core.workflow.plan import ModeFacts
from shared.errors import Invalid
from shared.wire.base import Request
from shared.wire.observerd_workflows import ModeInfo


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls a mode: the run, the node, and the hash of the node's work."""

    run_id: str
    node_id: str
    cache_key: str

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt at the same work of the same run."""
        return hash_json([self.run_id, self.node_id, self.cache_key])


Run = Callable[[Any, Call], Awaitable[Any]]


@cache
def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema, which takes tens of milliseconds to make and never changes."""
    return model.model_json_schema()


@dataclass(frozen=True, slots=True)
class Mode:
    """One thing that nodes can do.

    Attributes:
        version: counted up when the same inputs come to give something else.
        inputs: what `with` must be; None where it may be anything.
        run: gives the output, plain JSON data, for validated inputs.
        side_effects: whether it changes anything; then it is not repeated unasked.
        adapt: brings `with` into the form of `inputs`.
    """

    name: str
    description: str
    inputs: type[BaseModel] | None
    run: Run
    version: int = 1
    side_effects: bool = False
    adapt: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def facts(self) -> ModeFacts:
        """What validation must know."""
        if self.inputs is None:
            return ModeFacts(self.version, self.side_effects, None, frozenset())
        # A model that takes anything beside its own fields leaves nothing to check.
        open_ended = self.inputs.model_config.get("extra") == "allow"
        allowed: set[str] = set()
        required: set[str] = set()
        for name, field in self.inputs.model_fields.items():
            alias = field.validation_alias
            names = [str(one) for one in alias.choices] if isinstance(alias, AliasChoices) else []
            allowed |= set(names or [name])
            if field.is_required():
                required.add(name)
        return ModeFacts(
            self.version,
            self.side_effects,
            None if open_ended else frozenset(allowed),
            frozenset(required),
        )

    def describe(self) -> ModeInfo:
        """What people are told."""
        schema = {"type": "object"} if self.inputs is None else _schema_of(self.inputs)
        return ModeInfo(
            name=self.name,
            version=self.version,
            description=self.description,
            side_effects=self.side_effects,
            inputs=schema,
        )

    async def call(self, given: dict[str, Any], call: Call) -> Any:
        """Runs the mode.

        Raises:
            Invalid: the inputs, now that references have values, are not what it takes.
            LakehouseError: whatever it met.
        """
        if self.inputs is None:
            return await self.run(given, call)
        try:
            request = self.inputs.model_validate(self.adapt(given) if self.adapt else given)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise Invalid(f"{self.name} cannot take {where or 'this'}: {problem['msg']}") from None
        return await self.run(request, call)


class Modes:
    """The modes by name."""

    def __init__(self, modes: list[Mode]) -> None:
        self._modes: Mapping[str, Mode] = {mode.name: mode for mode in modes}
        self.facts: Mapping[str, ModeFacts] = {mode.name: mode.facts() for mode in modes}

    def find(self, name: str) -> Mode:
        """A mode that validation has let pass.

        Raises:
            Invalid: this build has it no longer.
        """
        mode = self._modes.get(name)
        if mode is None:
            raise Invalid(f"There is no mode {name!r} any more. GET …/workflows/modes lists them.")
        return mode

    def describe(self) -> list[ModeInfo]:
        """All of them by name."""
        return [self._modes[name].describe() for name in sorted(self._modes)]


class UpperInputs(Request):
    """A text."""

    text: str


class EchoInputs(BaseModel, extra="allow"):
    """Anything; `delay_ms` is how long it takes, at most ten minutes."""

    delay_ms: float = Field(default=0.0, ge=0, le=600_000)


async def run_echo(inputs: EchoInputs, _: Call) -> Any:
    """Gives back what it was given, after its delay."""
    if inputs.delay_ms:
        await asyncio.sleep(inputs.delay_ms / 1000)
    return inputs.model_extra or {}


async def run_upper(inputs: UpperInputs, _: Call) -> Any:
    """The text in capitals."""
    return {"text": inputs.text.upper()}


FIXTURES = [
    Mode(
        "fixture.echo",
        "Gives back its inputs; with delay_ms it takes that long",
        EchoInputs,
        run_echo,
    ),
    Mode("fixture.upper", "Gives its text in capitals", UpperInputs, run_upper),
]

"""Request bodies that come in more than one form."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from shared.errors import UnsupportedMediaType
from shared.wire.observerd import Event, EventBatch
from shared.wire.observerd_workflows import WorkflowSpec

M = TypeVar("M", bound=BaseModel)

JSON_TYPES = frozenset({"", "application/json", "application/x-www-form-urlencoded"})
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})


def _describe(content: dict[str, type[BaseModel] | list[type[BaseModel]]]) -> dict[str, Any]:
    def schema(model: type[BaseModel] | list[type[BaseModel]]) -> dict[str, Any]:
        if isinstance(model, list):
            return {"anyOf": [one.model_json_schema() for one in model]}
        return model.model_json_schema()

    shown = {kind: {"schema": schema(model)} for kind, model in content.items()}
    return {"requestBody": {"required": True, "content": shown}}


EVENT_BODY = _describe({"application/json": [EventBatch, Event]})
WORKFLOW_BODY = _describe({"application/json": WorkflowSpec, "application/yaml": WorkflowSpec})


def read_events(body: bytes) -> list[Event]:
    """The events of a body: a batch, or one event by itself.

    Raises:
        RequestValidationError: it is neither.
    """
    try:
        return EventBatch.model_validate_json(body).events
    except ValidationError as error:
        try:
            whole: Any = orjson.loads(body)
        except orjson.JSONDecodeError:
            whole = None
        if isinstance(whole, dict) and "events" not in whole:
            return [_validate(Event, body)]
        raise _to_request_error(error) from None


async def read_workflow(request: Request) -> WorkflowSpec:
    """The workflow of a body, JSON or YAML by its content type.

    Raises:
        RequestValidationError: it is none.
        Invalid: the YAML cannot be read.
        UnsupportedMediaType: it is something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind in JSON_TYPES:
        return _validate(WorkflowSpec, body)
    if kind not in YAML_TYPES:
        raise UnsupportedMediaType(
            f"A workflow is application/json or application/yaml, not {kind[:100]!r}."
        )
    # Loaded at the first YAML: most fleets never see one.
    from services.observerd.documents import parse_yaml

    data = parse_yaml(body)
    try:
        return WorkflowSpec.model_validate(data)
    except ValidationError as error:
        raise _to_request_error(error) from None


def _validate(model: type[M], body: bytes) -> M:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _to_request_error(error) from None


def _to_request_error(error: ValidationError) -> RequestValidationError:
    problems = error.errors(include_url=False)
    return RequestValidationError(
        [{**problem, "loc": ("body", *problem["loc"])} for problem in problems]
    )

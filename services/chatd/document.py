"""Request bodies in the API's document.

Routes parse their bodies themselves, so the framework does not know them; and they nest, so
that their parts have to stand where the document's references look for them.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

_REF = "#/components/schemas/{model}"


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """The body of a route, by reference; `add_bodies` puts it where that points."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}


def add_bodies(app: FastAPI, *models: type[BaseModel]) -> None:
    """Adds the models and all their parts to the document."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in models:
            schema = model.model_json_schema(ref_template=_REF)
            schemas.update(schema.pop("$defs", {}))
            # A recursive model is one of its own parts, and is a reference itself.
            if "$ref" not in schema:
                schemas[model.__name__] = schema
        return document

    app.openapi = openapi

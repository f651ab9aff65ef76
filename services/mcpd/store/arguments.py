"""Arguments that several tools take: bounds, and what a model is told of each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

Query = Annotated[
    str,
    Field(description="What is looked for, in natural language", min_length=1, max_length=20_000),
]
Corpora = Annotated[
    list[str] | None,
    Field(
        description="Corpora to search, as list_corpora names them; all when left out",
        min_length=1,
        max_length=32,
    ),
]
Filters = Annotated[
    dict[str, Any] | None,
    Field(
        description='Conditions on fields, as {"city": {"eq": "Oslo"}}; operators eq ne in nin gt '
        "gte lt lte contains, joined by and, or, not"
    ),
]
UsePlaybook = Annotated[
    bool, Field(description="Whether what was recorded as working before may move documents")
]
Model = Annotated[
    str,
    Field(
        description="A tier such as tier/local_fast, or a model as chatd routes it",
        min_length=1,
        max_length=300,
    ),
]
WaitSeconds = Annotated[float, Field(description="Seconds to wait for the run to end", ge=0, le=60)]

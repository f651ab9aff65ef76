"""The daemons' documents as one, and what its page may load."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from services.gateway.core.openapi import find_clashes, merge_documents, rename_references
from services.gateway.core.pages import content_security_policy

PAGE = Path(__file__).parents[2] / "services" / "gateway" / "pages" / "docs.html"


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def document(paths: dict[str, str], schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "paths": {
            path: {"get": {"operationId": f"get{path}", "tags": ["x"], "responses": ref(name)}}
            for path, name in paths.items()
        },
        "components": {"schemas": schemas},
    }


def merge(documents: dict[str, dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return merge_documents(
        documents, **{"missing": {}, "version": "1", "with_token": False, **changes}
    )


COLUMN_A = {"type": "object", "properties": {"name": {"type": "string"}}}
COLUMN_B = {"type": "object", "properties": {"name": {"type": "integer"}}}
ERROR = {"type": "object", "properties": {"code": {"type": "string"}}}


def test_paths_are_shown_where_the_gateway_routes_them() -> None:
    merged = merge(
        {
            "gateway": document({"/ready": "E"}, {"E": ERROR}),
            "queryd": document({"/sql": "E", "/health": "E"}, {"E": ERROR}),
            "embedd": document({"/embed": "E", "/v1/embeddings": "E"}, {"E": ERROR}),
        }
    )
    assert list(merged["paths"]) == ["/ready", "/v1/embed", "/v1/embeddings", "/v1/sql"]
    operation = merged["paths"]["/v1/sql"]["get"]
    assert operation["tags"] == ["queryd"]
    assert operation["operationId"] == "queryd_get/sql"


def test_equal_components_are_one_and_different_ones_two() -> None:
    merged = merge(
        {
            "queryd": document({"/sql": "Column"}, {"Column": COLUMN_A, "E": ERROR}),
            "catalogd": document({"/catalog": "Column"}, {"Column": COLUMN_B, "E": ERROR}),
        }
    )
    schemas = merged["components"]["schemas"]
    assert set(schemas) == {"queryd.Column", "catalogd.Column", "E"}
    assert schemas["queryd.Column"] == COLUMN_A
    assert merged["paths"]["/v1/sql"]["get"]["responses"] == ref("queryd.Column")
    assert merged["paths"]["/v1/catalog"]["get"]["responses"] == ref("catalogd.Column")


def test_a_clash_spreads_to_what_refers_to_it() -> None:
    table = {"properties": {"columns": {"items": ref("Column")}}}
    outer = {"properties": {"tables": {"items": ref("Table")}}}
    documents = {
        "queryd": document({}, {"Column": COLUMN_A, "Table": table, "Outer": outer, "E": ERROR}),
        "catalogd": document({}, {"Column": COLUMN_B, "Table": table, "Outer": outer, "E": ERROR}),
    }
    assert find_clashes(documents) == {("schemas", n) for n in ("Column", "Table", "Outer")}
    schemas = merge(documents)["components"]["schemas"]
    assert schemas["queryd.Outer"]["properties"]["tables"]["items"] == ref("queryd.Table")
    assert schemas["catalogd.Table"]["properties"]["columns"]["items"] == ref("catalogd.Column")


def test_a_component_that_refers_to_itself_is_no_clash() -> None:
    tree = {"properties": {"children": {"items": ref("Tree")}}}
    documents = {"queryd": document({}, {"Tree": tree}), "catalogd": document({}, {"Tree": tree})}
    assert find_clashes(documents) == set()


def test_discriminators_follow_and_other_texts_stay() -> None:
    node = {
        "oneOf": [ref("A")],
        "discriminator": {"propertyName": "kind", "mapping": {"a": "#/components/schemas/A"}},
        "description": "#/components/schemas/A",
        "properties": {"mapping": {"type": "object"}},
    }
    renamed = rename_references(node, lambda section, name: f"{section}.{name}")
    assert renamed["oneOf"] == [ref("schemas.A")]
    assert renamed["discriminator"]["mapping"] == {"a": "#/components/schemas/schemas.A"}
    assert renamed["description"] == "#/components/schemas/A"
    assert renamed["properties"] == {"mapping": {"type": "object"}}


def test_every_reference_of_the_whole_leads_somewhere() -> None:
    documents = {
        "queryd": document({"/sql": "Column"}, {"Column": COLUMN_A, "T": {"items": ref("Column")}}),
        "catalogd": document(
            {"/catalog": "T"}, {"Column": COLUMN_B, "T": {"items": ref("Column")}}
        ),
    }
    before = copy.deepcopy(documents)
    merged = merge(documents)

    def check(section: str, name: str) -> str:
        assert name in merged["components"][section]
        return name

    rename_references(merged, check)
    assert documents == before


def test_missing_parts_are_said() -> None:
    merged = merge({"queryd": document({}, {})}, missing={"storaged": "storaged is down"})
    assert merged["x-missing"] == {"storaged": "storaged is down"}
    assert "storaged is down" in merged["info"]["description"]


def test_the_token_is_declared_when_it_is_asked_for() -> None:
    assert "security" not in merge({})
    merged = merge({}, with_token=True)
    (name,) = merged["security"][0]
    assert merged["components"]["securitySchemes"][name] == {"type": "http", "scheme": "bearer"}


def test_damaged_documents_do_not_break_the_whole() -> None:
    broken = {"paths": None, "components": {"schemas": [1], "responses": "x"}}
    merged = merge({"queryd": broken, "catalogd": document({"/catalog": "E"}, {"E": ERROR})})
    assert list(merged["paths"]) == ["/v1/catalog"]


def test_the_page_runs_its_own_script_and_loads_nothing() -> None:
    page = PAGE.read_text("utf-8")
    assert "http://" not in page
    assert "https://" not in page
    assert not any(word in page for word in (" src=", "@import", "url(", "innerHTML", "eval("))
    policy = content_security_policy(page)
    assert policy.startswith("default-src 'none'; connect-src 'self'; script-src 'sha256-")
    assert policy.count("'sha256-") == 2
    assert content_security_policy(page.replace("use strict", "use other")) != policy
    assert "script-src 'none'; style-src 'none'" in content_security_policy("<p>nothing</p>")

"""Each published schema is a schema, says its version, and lets nothing pass that it does not name."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from mcutune.export import folder
from mcutune.robustness import differences, gate, rebuild
from tests.schemas import CARD, DIFFERENCE, GATE, REPORT, STATUS, objects, schema

VERSIONS = {REPORT: rebuild.SCHEMA, GATE: gate.SCHEMA, DIFFERENCE: differences.SCHEMA, CARD: folder.SCHEMA}


@pytest.mark.parametrize("of", [REPORT, GATE, DIFFERENCE, CARD, STATUS], ids=lambda of: of[1])
def test_it_is_a_schema_whose_objects_are_closed(of: tuple[str, str]) -> None:
    found = schema(of)
    jsonschema.Draft202012Validator.check_schema(found)
    for one in objects(found):
        described = any(key in one for key in ("additionalProperties", "unevaluatedProperties"))
        assert described or _within_another(found, one), sorted(one["properties"])


def _within_another(whole: dict[str, Any], one: dict[str, Any]) -> bool:
    """Closed where it is used (unevaluatedProperties), or a part of an entry that another schema describes."""
    shared = [whole.get("$defs", {}).get("difference"), *objects(whole["properties"].get("protocols", {}))]
    return whole["title"].startswith("mcutune diff") and one in shared


@pytest.mark.parametrize("of", VERSIONS, ids=lambda of: of[1])
def test_the_version_is_the_one_that_is_written(of: tuple[str, str]) -> None:
    found = schema(of)
    assert found["properties"]["schema"] == {"const": VERSIONS[of]}
    assert f"schema {VERSIONS[of]}" in found["title"]

"""`hpo schema`: the JSON Schema of a sweep's YAML, as text."""

from __future__ import annotations

import json

from hpo.config.schema import json_schema


def schema_text() -> str:
    """The schema, indented; a program that checks YAML, or an editor, reads it."""
    return json.dumps(json_schema(), indent=1)

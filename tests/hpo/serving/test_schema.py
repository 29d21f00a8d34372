"""The OpenAPI page is true: what it describes is sent at random, and every answer is one that it describes."""

from __future__ import annotations

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODELS = {"/v1/classify": "judge", "/v1/embeddings": "judge", "/v1/completions": "writer"}
OPERATIONS = [
    ("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics"), ("GET", "/v1/models"), ("GET", "/v1/models/{model}"),
    ("POST", "/v1/classify"), ("POST", "/v1/embeddings"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"),
]  # fmt: skip


@pytest.fixture(scope="module")
def schema(running):
    return schemathesis.openapi.from_url(f"{running.url}/openapi.json")


def test_every_operation_is_tried(schema):
    found = [(result.ok().method.upper(), result.ok().path) for result in schema.get_all_operations()]
    assert sorted(found) == sorted(OPERATIONS)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_described(schema, running, method, path, mode):
    """Half of the requests fit their description, half do not. The model is one that there is: an unknown name ends a
    request early."""
    operation = schema[path][method]
    checks = CHECKS if mode is GenerationMode.POSITIVE else [*CHECKS, negative_data_rejection]
    if mode is GenerationMode.NEGATIVE and not operation.body:
        pytest.skip("it takes nothing that could be wrong")

    answered = []

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(case):
        if isinstance(case.body, dict) and isinstance(case.body.get("model", ""), str):
            case.body["model"] = MODELS.get(path, "writer")
        answered.append(case.call_and_validate(checks=checks, timeout=20).status_code)

    check()
    assert answered  # and each answer passed every check


@pytest.mark.parametrize("path", sorted({path for _, path in OPERATIONS}))
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(running, method, path):
    if (method, path) in OPERATIONS:
        pytest.skip("it is described")
    found = httpx2.request(method, running.url + path.replace("{model}", "judge"))
    (allowed,) = [known for known, at in OPERATIONS if at == path]
    assert (found.status_code, found.headers["allow"]) == (405, allowed)
    assert found.json()["error"]["type"] == "invalid_request_error"

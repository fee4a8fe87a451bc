"""The gateway held against its own OpenAPI document, by schemathesis: requests of every kind, replies as described."""

import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from gateway.app import create_app
from gateway.settings import GatewaySettings
from tests.fuzz.target import Target, open_target

# Of each route; `make fuzz` asks for more.
EXAMPLES = int(os.environ.get("LOOKONCE_FUZZ_EXAMPLES", "10"))
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
# It knows of image/* by itself.
schemathesis.serializer.alias("video/*", "application/octet-stream")
SCHEMA = schemathesis.openapi.from_dict(create_app(GatewaySettings(vision=(), language=())).openapi())


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A deployment of its own."""
    with open_target(tmp_path_factory.mktemp("description")) as opened:
        yield opened


@SCHEMA.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_replies_are_as_described(target: Target, case: schemathesis.Case) -> None:
    """Whatever is sent, sound or not: a described status, type and shape, and no server error."""
    response = case.call(base_url=target.deployment.url)
    kind = response.headers.get("content-type", [""])[0]
    # Of a stream the document describes what each event's data holds, and schemathesis the event around it.
    streamed = {checks.response_schema_conformance} if kind.startswith("text/event-stream") else set()
    case.validate_response(response, checks=CHECKS, excluded_checks=list(streamed))


def test_good_requests_are_answered_afterwards(target: Target) -> None:
    """And as they were at first."""
    target.check_well()

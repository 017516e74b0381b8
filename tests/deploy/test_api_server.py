"""What a real API server makes of the shipped manifests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.deploy.shipped import (
    API_SERVER,
    BASE,
    CLEANUP,
    EXAMPLE,
    Object,
    kustomized,
    templated,
    text_of,
)

pytestmark = pytest.mark.cluster

# These exist only where prometheus-operator is installed.
CUSTOM = {"PodMonitor", "PrometheusRule"}


@pytest.mark.parametrize(
    "objects",
    [
        lambda: kustomized(BASE),
        lambda: kustomized(EXAMPLE),
        lambda: kustomized(CLEANUP),
        lambda: templated(API_SERVER),
        lambda: templated(
            API_SERVER,
            "config.metricsBindAddress=0.0.0.0:10249",
            "podMonitor.enabled=true",
            "prometheusRule.enabled=true",
            "dashboard.enabled=true",
        ),
    ],
    ids=["base", "example", "cleanup", "chart", "chart with all options"],
)
def test_the_api_server_accepts_what_is_shipped(plane, objects: Callable[[], list[Object]]):
    sent = [each for each in objects() if each["kind"] not in CUSTOM]

    said = plane.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-",
        stdin=text_of(sent),
    )  # fmt: skip

    assert said.count("serverside-applied (server dry run)") == len(sent)

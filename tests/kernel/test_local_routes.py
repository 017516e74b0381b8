"""What the kernel delivers to this host."""

from __future__ import annotations

import pytest

from backends.kernel.local_routes import local_routes
from kproxy.core.addresses import Family
from tests.support.commands import output_of
from tests.support.net.namespace import Namespace

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("family", Family)
def test_a_host_whose_loopback_is_down_has_none(family):
    namespace = Namespace("host")
    try:
        with namespace.entered():
            assert local_routes(family) == []
            output_of("ip", "link", "set", "lo", "up", timeout_s=10)
            assert local_routes(family)
    finally:
        namespace.close()

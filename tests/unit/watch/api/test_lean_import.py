"""What asking an API server imports."""

import subprocess
import sys

_ASKED = """
import sys
from kproxy.watch.api.access import Access, connect
from kproxy.watch.api.errors import ApiError, Doing
try:
    connect(Access(master="http://127.0.0.1:1")).session().request(
        Doing("list", "services"), "/api/v1/services", answer_s=1.0
    )
except ApiError as error:
    print(error)
print(*sorted(name for name in sys.modules if name.startswith("kubernetes.")))
print(*{"pydantic", "requests", "oauthlib", "websocket"} & set(sys.modules))
from kubernetes.config import kube_config
print(*{"requests"} & set(sys.modules))
"""


def test_only_the_transport_of_the_kubernetes_package_comes_and_the_rest_when_it_is_asked_for():
    found = subprocess.run(
        [sys.executable, "-c", _ASKED], capture_output=True, check=True, text=True
    )
    refused, imported, others, later = found.stdout.splitlines()
    assert "127.0.0.1:1" in refused
    assert "kubernetes.client.rest" in imported
    assert "kubernetes.watch" not in imported
    assert others == ""
    assert later == "requests"

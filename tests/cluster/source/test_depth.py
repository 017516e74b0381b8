"""An object that nests as deeply as a real API server takes it, from anybody who may write one."""

from tests.support.fake_api.samples import endpoint_slice, service
from tests.support.fake_api.source import own_node, run
from tests.support.recursion import recursion_limit

_LEVELS = 9_900


def test_a_deep_object_is_followed_like_any(server, tmp_path, request):
    deep = service("deep", "10.96.1.2")
    deep["metadata"]["managedFields"] = [
        {
            "manager": "anybody",
            "operation": "Update",
            "apiVersion": "v1",
            "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": nested("f:a", _LEVELS),
        }
    ]
    with recursion_limit(20 * _LEVELS):
        server.put(own_node(), endpoint_slice("web-1"), deep)
    request.addfinalizer(lambda: forgotten(server, deep))

    async def story(follower):
        await follower.until(lambda: follower.ports() == {"deep": 80})
        server.put(service("new", "10.96.1.3"))
        await follower.until(lambda: follower.ports() == {"deep": 80, "new": 80})
        assert follower.status().lists == 1

    with recursion_limit(1000):
        run(server, tmp_path, story)


def forgotten(server, deep):
    with recursion_limit(20 * _LEVELS):
        server.delete(deep)


def nested(name, levels):
    value = {}
    for _ in range(levels):
        value = {name: value}
    return value

"""What the fake and a real API server refuse alike: who asks, and what."""

import pytest

from tests.support.fake_api.resources import ENDPOINT_SLICES, EVENTS, NODES, SERVICES
from tests.support.fake_api.samples import event, service

USER = 'User "system:serviceaccount:kube-system:kube-proxy"'
PATH = SERVICES.collection()
POSTED = EVENTS.collection("default")
OPTIONS = 'ListOptions.meta.k8s.io "" is invalid: '
MERGE = "application/merge-patch+json"


def refusal(reply):
    """Return the code and the words of a refusal, after a look at the rest of it."""
    document = reply.document
    assert (document["kind"], document["apiVersion"]) == ("Status", "v1")
    assert (document["status"], document["code"]) == ("Failure", reply.status)
    return reply.status, document.get("reason", ""), document["message"]


def test_an_unknown_token_is_refused(server):
    assert refusal(server.ask("GET", PATH, token="nobody")) == (401, "Unauthorized", "Unauthorized")


def test_nobody_in_particular_may_do_nothing(server):
    status, reason, message = refusal(server.ask("GET", PATH, token=None))
    assert (status, reason) == (403, "Forbidden")
    assert 'User "system:anonymous" cannot list resource "services"' in message


FORBIDDEN = {
    ("GET", "/api/v1/pods", ()): (
        f'pods is forbidden: {USER} cannot list resource "pods" in API group "" '
        "at the cluster scope"
    ),
    ("GET", "/api/v1/secrets", (("watch", "1"),)): (
        f'secrets is forbidden: {USER} cannot watch resource "secrets" in API group "" '
        "at the cluster scope"
    ),
    ("GET", "/apis/apps/v1/deployments", (("fieldSelector", "metadata.name=web"),)): (
        f'deployments.apps "web" is forbidden: {USER} cannot list resource "deployments" '
        'in API group "apps" at the cluster scope'
    ),
    ("GET", ENDPOINT_SLICES.path("default", "web"), ()): (
        f'endpointslices.discovery.k8s.io "web" is forbidden: {USER} cannot get resource '
        '"endpointslices" in API group "discovery.k8s.io" in the namespace "default"'
    ),
    ("POST", SERVICES.collection("default"), ()): (
        f'services is forbidden: {USER} cannot create resource "services" in API group "" '
        'in the namespace "default"'
    ),
    ("GET", "/apis/networking.k8s.io/v1/rumours", ()): (
        f'rumours.networking.k8s.io is forbidden: {USER} cannot list resource "rumours" in '
        'API group "networking.k8s.io" at the cluster scope'
    ),
}


def test_what_the_role_does_not_name_is_forbidden(server):
    said = {
        (method, path, query): refusal(server.ask(method, path, **dict(query)))
        for method, path, query in FORBIDDEN
    }
    assert said == {asked: (403, "Forbidden", words) for asked, words in FORBIDDEN.items()}


def test_a_missing_resource_of_a_group_is_not_found(server):
    wanted = (404, "NotFound", "the server could not find the requested resource")
    for path in ("/apis/networking.k8s.io/v1/rumours", "/apis/networking.k8s.io/v9/servicecidrs"):
        with pytest.raises(Exception, match="404") as caught:
            server.admin.call("GET", path)
        assert str(caught.value).endswith(f"{wanted[0]} {wanted[1]}: {wanted[2]}")


def test_a_missing_group_is_no_page(server):
    with pytest.raises(Exception, match="404 page not found"):
        server.admin.call("GET", "/apis/rumours.example/v1/rumours")


def test_a_missing_object_is_not_found(server):
    reply = server.ask("GET", NODES.path("", "n1"))
    assert refusal(reply) == (404, "NotFound", 'nodes "n1" not found')


WRONG_OPTIONS = [
    ({"labelSelector": "!!x"}, 400, "unable to parse requirement: "),
    ({"labelSelector": "!x=y"}, 400, ""),
    ({"fieldSelector": "spec.colour=red"}, 400, "field label not supported: spec.colour"),
    ({"fieldSelector": "red"}, 400, "invalid selector: 'red'; can't understand 'red'"),
    ({"limit": "many"}, 400, 'strconv.ParseInt: parsing "many": invalid syntax'),
    ({"resourceVersion": "new"}, 400, "invalid resource version: resourceVersion: Invalid"),
    ({"watch": "1", "resourceVersion": "new"}, 500, "resourceVersion: Invalid value"),
    ({"continue": "there"}, 400, "invalid continue token: continue key is not valid"),
    (
        {"sendInitialEvents": "true"},
        422,
        f"{OPTIONS}sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
    ),
    (
        {"resourceVersionMatch": "NotOlderThan"},
        422,
        f"{OPTIONS}resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless "
        "resourceVersion is provided",
    ),
    (
        {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
        422,
        f'{OPTIONS}resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden '
        'for resourceVersion "0"',
    ),
    (
        {"watch": "1", "sendInitialEvents": "true"},
        422,
        f"{OPTIONS}resourceVersionMatch: Forbidden: sendInitialEvents requires setting "
        "resourceVersionMatch to NotOlderThan",
    ),
    (
        {"watch": "1", "resourceVersionMatch": "NotOlderThan"},
        422,
        f"{OPTIONS}resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for "
        "watch unless sendInitialEvents is provided",
    ),
]


def test_wrong_options_are_refused(server):
    replies = [refusal(server.ask("GET", PATH, **query)) for query, _, _ in WRONG_OPTIONS]
    reasons = {400: "BadRequest", 422: "Invalid", 500: ""}
    said = [
        (code, reason, message[: len(words)])
        for (code, reason, message), (_, _, words) in zip(replies, WRONG_OPTIONS, strict=True)
    ]
    assert said == [(code, reasons[code], words) for _, code, words in WRONG_OPTIONS]


def test_a_page_and_a_version_cannot_both_be_asked_for(server):
    server.put(service("s1", "10.96.1.1"), service("s2", "10.96.1.2"))
    following = server.ask("GET", PATH, limit="1").document["metadata"]["continue"]
    query = {"continue": following, "resourceVersion": "5"}
    assert refusal(server.ask("GET", PATH, **query))[2] == (
        "specifying resource version is not allowed when using continue"
    )


def test_a_version_that_nobody_has_come_to_is_refused(fake):
    """A real 1.37.1 says the same, after three seconds."""
    reply = fake.ask("GET", PATH, resourceVersion="999999")
    status, reason, message = refusal(reply)
    assert (status, reason) == (504, "Timeout")
    assert message.startswith("Timeout: Too large resource version: 999999, current: ")
    assert reply.headers["retry-after"] == "1"


def test_an_event_is_stored_and_can_be_counted_up(server):
    reply = server.ask("POST", POSTED, event("n1.1"))
    assert reply.status == 201
    again = {"series": {"count": 2, "lastObservedTime": "2026-01-02T03:05:05.000006Z"}}
    path = EVENTS.path("default", "n1.1")
    reply = server.ask("PATCH", path, again, content_type=MERGE)
    assert reply.status == 200
    (stored,) = server.objects(POSTED)
    assert stored["series"] == again["series"]
    assert stored["reason"] == "Starting"


def test_an_event_is_posted_once(server):
    server.ask("POST", POSTED, event("n1.1"))
    assert refusal(server.ask("POST", POSTED, event("n1.1"))) == (
        409,
        "AlreadyExists",
        'events.events.k8s.io "n1.1" already exists',
    )


WRONG_EVENTS = [
    ({"eventTime": None}, 422, "eventTime: Required value"),
    ({"reportingController": None}, 422, "reportingController: Required value"),
    ({"reportingInstance": None}, 422, "reportingInstance: Required value"),
    ({"reportingInstance": "x" * 129}, 422, "reportingInstance: Invalid value"),
    ({"action": None}, 422, "action: Required value"),
    ({"reason": None}, 422, "reason: Required value"),
    ({"type": None}, 422, 'type: Invalid value: "": has invalid value: '),
    ({"type": "Error"}, 422, 'type: Invalid value: "": has invalid value: Error'),
    ({"note": "x" * 1025}, 422, 'message: Invalid value: "": can have at most 1024 char'),
    ({"metadata": {"name": "N 1"}}, 422, 'metadata.name: Invalid value: "N 1"'),
    ({"eventTime": "2026-01-02T03:04:05Z"}, 400, "parsing time"),
    ({"series": {"count": 1}}, 422, "series.count: Invalid value"),
    ({"series": {"count": 2}}, 422, "series.lastObservedTime: Required value"),
    ({"metadata": {"name": "n1.1", "namespace": "other"}}, 400, "does not match the namespace"),
]


def test_an_event_that_lacks_something_is_refused(server):
    for change, code, words in WRONG_EVENTS:
        status, _, said = refusal(server.ask("POST", POSTED, event("n1.1", **change)))
        assert (status, words in said) == (code, True), (change, said)
    assert server.objects(POSTED) == []


def test_an_event_of_a_missing_namespace_is_refused(server):
    wanted = event("n1.1", metadata={"name": "n1.1", "namespace": "nowhere"})
    reply = server.ask("POST", EVENTS.collection("nowhere"), wanted)
    assert refusal(reply) == (404, "NotFound", 'namespaces "nowhere" not found')


def test_only_the_count_of_an_event_may_change(server):
    server.ask("POST", POSTED, event("n1.1"))
    path = EVENTS.path("default", "n1.1")
    reply = server.ask("PATCH", path, {"note": "other"}, content_type=MERGE)
    status, reason, message = refusal(reply)
    assert (status, reason) == (422, "Invalid")
    assert "field is immutable" in message


def test_a_patch_has_to_say_of_which_kind_it_is(server):
    server.ask("POST", POSTED, event("n1.1"))
    reply = server.ask("PATCH", EVENTS.path("default", "n1.1"), {})
    assert refusal(reply) == (415, "UnsupportedMediaType", "415: Unsupported Media Type")


def test_a_body_has_to_be_of_a_kind_that_is_known(server):
    reply = server.ask("POST", POSTED, event("n1.1"), content_type="text/plain")
    status, reason, message = refusal(reply)
    assert (status, reason) == (415, "UnsupportedMediaType")
    assert "application/json" in message


def test_the_proxy_may_not_read_events(server):
    status, reason, message = refusal(server.ask("GET", POSTED))
    assert (status, reason) == (403, "Forbidden")
    assert message.endswith('in API group "events.k8s.io" in the namespace "default"')


def test_a_stale_write_is_a_conflict(server):
    (stored,) = server.put(service("s1"))
    server.put(service("s1", port=81))
    with pytest.raises(Exception, match="409 Conflict"):
        server.admin.replace({**stored, "spec": {**stored["spec"], "ports": [{"port": 82}]}})

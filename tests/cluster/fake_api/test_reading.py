"""Lists and watches: what the fake and a real API server answer alike."""

from tests.support.fake_api.resources import ENDPOINT_SLICES, NODES, SERVICE_CIDRS, SERVICES
from tests.support.fake_api.samples import HEADLESS, OTHER_PROXY, endpoint_slice, node, service
from tests.support.fake_api.servers import STREAMING
from tests.support.waiting import LONGEST_S, until

PROXIED = {"labelSelector": f"!{OTHER_PROXY}", "fieldSelector": "spec.clusterIP!=None"}
PATH = SERVICES.collection()


def names(documents):
    return [
        each["metadata"]["name"] for each in documents if each["metadata"]["name"] != "kubernetes"
    ]


def version(document):
    return int(document["metadata"]["resourceVersion"])


def shown(events):
    """Return what events say, but for those of the cluster's own objects."""
    said = [(e["type"], e["object"]["metadata"].get("name", "")) for e in events]
    return [each for each in said if each[1] != "kubernetes"]


def is_end_of_list(event):
    return event["type"] == "BOOKMARK" and "annotations" in event["object"]["metadata"]


def three_services(server):
    return server.put(*(service(f"s{i}", f"10.96.1.{i}") for i in (1, 2, 3)))


def test_a_list_names_its_kind_and_version(server):
    for resource in (SERVICES, ENDPOINT_SLICES, NODES, SERVICE_CIDRS):
        reply = server.ask("GET", resource.collection())
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json"
        listed = reply.document
        assert listed["kind"] == f"{resource.kind}List"
        assert listed["apiVersion"] == resource.api_version
        assert version(listed) > 0
        assert names(listed["items"]) == []


def test_items_of_a_list_do_not_repeat_their_kind(server):
    stored = three_services(server)[1]
    listed = server.ask("GET", PATH).document
    assert names(listed["items"]) == ["s1", "s2", "s3"]
    found = next(each for each in listed["items"] if each["metadata"]["name"] == "s2")
    assert "kind" not in found
    assert "apiVersion" not in found
    assert found["metadata"] == stored["metadata"]
    assert version(listed) >= version(stored)


def test_selectors_limit_a_list(server):
    server.put(
        service("plain", "10.96.1.1"),
        service("headless", "None"),
        service("other", "10.96.1.3", **{OTHER_PROXY: ""}),
        endpoint_slice("plain-1"),
        endpoint_slice("headless-1", **{HEADLESS: ""}),
        node("n1"),
        node("n2"),
    )
    assert names(server.ask("GET", PATH, **PROXIED).document["items"]) == ["plain"]
    slices = server.ask("GET", ENDPOINT_SLICES.collection(), labelSelector=f"!{HEADLESS}")
    assert names(slices.document["items"]) == ["plain-1"]
    nodes = server.ask("GET", NODES.collection(), fieldSelector="metadata.name=n2")
    assert names(nodes.document["items"]) == ["n2"]


def test_a_list_can_be_that_of_one_namespace(server):
    elsewhere = endpoint_slice("there-1")
    elsewhere["metadata"]["namespace"] = "kube-system"
    server.put(endpoint_slice("here-1"), elsewhere)
    listed = server.objects(ENDPOINT_SLICES.collection("kube-system"))
    assert names(listed) == ["there-1"]


def test_the_pages_of_a_list_show_one_moment(server):
    three_services(server)
    first = server.ask("GET", PATH, limit="1", **PROXIED).document
    server.delete(service("s3"))
    server.put(service("s2b", "10.96.1.9"))
    pages = [first]
    while following := pages[-1]["metadata"].get("continue"):
        query = {"limit": "1", "continue": following, **PROXIED}
        pages.append(server.ask("GET", PATH, **query).document)
    assert [len(page["items"]) for page in pages] == [1] * len(pages)
    assert [name for page in pages for name in names(page["items"])] == ["s1", "s2", "s3"]
    assert len({version(page) for page in pages}) == 1
    assert not any("remainingItemCount" in page["metadata"] for page in pages)


def test_the_rest_of_a_list_is_counted_where_nothing_is_selected(server):
    three_services(server)
    whole = server.ask("GET", PATH).document["items"]
    page = server.ask("GET", PATH, limit="2").document
    assert page["metadata"]["remainingItemCount"] == len(whole) - 2


def three_services_at_any_version(server):
    """Make three Services; return a list of which any version will do, when it has them all.

    A real server answers that out of a cache, which may not have come that far yet.
    """
    three_services(server)
    lists = []

    def whole():
        lists.append(server.ask("GET", PATH, limit="1", resourceVersion="0").document)
        return names(lists[-1]["items"]) == ["s1", "s2", "s3"]

    until(whole, within_s=LONGEST_S, what=lambda: f"all three are in {lists[-1]}")
    return lists[-1]


def test_a_list_at_any_version_comes_in_one_piece(server):
    assert "continue" not in three_services_at_any_version(server)["metadata"]


def test_one_object_can_be_asked_for(server):
    (stored,) = server.put(node("n1"))
    assert server.ask("GET", NODES.path("", "n1")).document == stored


def test_a_streamed_list_ends_with_a_bookmark(server):
    stored = three_services(server)
    with server.watch(PATH, **STREAMING, **PROXIED) as watch:
        *listed, end = watch.until(is_end_of_list)
    assert sorted(shown(listed)) == [("ADDED", f"s{i}") for i in (1, 2, 3)]
    (second,) = [e["object"] for e in listed if e["object"]["metadata"]["name"] == "s2"]
    assert second == stored[1]
    assert end["object"]["kind"] == "Service"
    assert version(end["object"]) >= version(stored[2])
    assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_bookmarks_are_empty_objects_of_the_kind(server):
    for resource in (SERVICES, ENDPOINT_SLICES, NODES, SERVICE_CIDRS):
        with server.watch(resource.collection(), **STREAMING) as watch:
            end = watch.until(is_end_of_list)[-1]["object"]
        assert end.pop("metadata").keys() == {"resourceVersion", "annotations"}
        expected = {"kind": resource.kind, "apiVersion": resource.api_version, **resource.empty}
        assert end == expected


def test_who_does_not_ask_for_bookmarks_gets_none(server):
    server.put(service("s1"))
    streaming = {name: text for name, text in STREAMING.items() if "Bookmarks" not in name}
    with server.watch(PATH, **streaming, **PROXIED) as watch:
        first = watch.until(lambda event: event["object"]["metadata"]["name"] == "s1")
        server.delete(service("s1"))
        assert shown(first + watch.take(1)) == [("ADDED", "s1"), ("DELETED", "s1")]


def test_a_watch_from_nowhere_begins_with_all_there_is(server):
    three_services_at_any_version(server)
    for query in ({}, {"resourceVersion": "0"}):
        with server.watch(PATH, allowWatchBookmarks="true", **query, **PROXIED) as watch:
            *listed, _ = watch.until(is_end_of_list)
        assert sorted(shown(listed)) == [("ADDED", f"s{i}") for i in (1, 2, 3)]


def test_a_watch_tells_what_happened_after_its_version(server):
    three_services(server)
    listed = server.ask("GET", PATH).document
    server.put(service("s2", "10.96.1.2", port=81))
    with server.watch(PATH, resourceVersion=str(version(listed))) as watch:
        server.put(service("s4", "10.96.1.4"))
        server.delete(service("s1"))
        events = watch.take(3)
    assert shown(events) == [("MODIFIED", "s2"), ("ADDED", "s4"), ("DELETED", "s1")]
    versions = [version(event["object"]) for event in events]
    assert versions == sorted(set(versions)), "each event has a version of its own"
    assert versions[0] > version(listed)
    assert events[0]["object"]["spec"]["ports"][0]["port"] == 81
    assert events[2]["object"]["spec"]["clusterIP"] == "10.96.1.1", "as it was at last"


def test_what_leaves_the_selection_is_deleted_and_what_enters_is_added(server):
    server.put(service("s1", "10.96.1.1"), service("s2", "10.96.1.2", **{OTHER_PROXY: "x"}))
    listed = server.ask("GET", PATH).document
    with server.watch(PATH, resourceVersion=str(version(listed)), **PROXIED) as watch:
        server.put(service("s2", "10.96.1.2", **{OTHER_PROXY: "y"}))  # nobody sees this
        (left,) = server.put(service("s1", "10.96.1.1", **{OTHER_PROXY: "x"}))
        server.put(service("s2", "10.96.1.2"))
        gone, added = watch.take(2)
    assert shown([gone, added]) == [("DELETED", "s1"), ("ADDED", "s2")]
    assert version(gone["object"]) == version(left)
    assert OTHER_PROXY not in gone["object"]["metadata"].get("labels", {}), "as it was at last"


def test_a_watch_can_resume_from_any_version_it_was_told(server):
    three_services(server)
    with server.watch(PATH, **STREAMING, **PROXIED) as watch:
        end = watch.until(is_end_of_list)[-1]
    server.delete(service("s2"))
    with server.watch(PATH, resourceVersion=str(version(end["object"])), **PROXIED) as watch:
        (gone,) = watch.take(1)
    server.put(service("s3", "10.96.1.3", port=81))
    with server.watch(PATH, resourceVersion=str(version(gone["object"])), **PROXIED) as watch:
        assert shown(watch.take(1)) == [("MODIFIED", "s3")]


def test_one_counter_gives_versions_to_all_kinds(server):
    first, second, third = server.put(service("s1"), endpoint_slice("s1-1"), node("n1"))
    assert version(first) < version(second) < version(third)
    assert version(server.ask("GET", PATH).document) >= version(third)


def test_an_update_that_changes_nothing_happens_to_nobody(server):
    (before,) = server.put(service("s1"))
    (after,) = server.put(service("s1"))
    assert version(before) == version(after)


def test_a_watch_ends_in_time(server):
    (stored,) = server.put(service("s1"))
    query = {"resourceVersion": str(version(stored)), "timeoutSeconds": "1"}
    with server.watch(PATH, **query) as watch:
        assert watch.next() is None


def test_a_watch_says_how_far_it_has_come_before_it_ends(server):
    (stored,) = server.put(service("s1"))
    query = {"resourceVersion": str(version(stored)), "timeoutSeconds": "4"}
    server.put(node("n1"))
    said = []

    def says():
        server.ask("GET", PATH)  # a real server asks its storage how far it is when somebody lists
        with server.watch(PATH, allowWatchBookmarks="true", **query) as watch:
            said.append(watch.next())
        return said[-1] and version(said[-1]["object"]) > version(stored)

    # A real server that is busy may come too late for the end of a watch.
    until(says, within_s=LONGEST_S, what="it has come to the versions of other kinds")
    assert said[-1]["type"] == "BOOKMARK"
    assert "annotations" not in said[-1]["object"]["metadata"]


def test_a_watch_from_a_version_of_the_future_is_told_nothing(server):
    """That is how a server answers whose etcd was restored from a backup."""
    (stored,) = server.put(service("s1"))
    query = {"resourceVersion": str(version(stored) + 1000), "timeoutSeconds": "4"}
    with server.watch(PATH, allowWatchBookmarks="true", **query) as watch:
        assert watch.status == 200
        server.put(service("s2", "10.96.1.2"))
        assert watch.next() is None


def test_nobody_resumes_from_a_history_that_is_gone(server):
    three_services(server)
    page = server.ask("GET", PATH, limit="1", **PROXIED).document
    before = str(version(page))
    server.delete(service("s3"))
    server.forget_history()

    with server.watch(PATH, resourceVersion=before, **PROXIED) as watch:
        assert watch.status == 200
        (error,) = watch.take(1)
        assert watch.next() is None
    assert error["type"] == "ERROR"
    assert (error["object"]["code"], error["object"]["reason"]) == (410, "Expired")
    assert error["object"]["message"].startswith(f"too old resource version: {before} (")

    exact = server.ask("GET", PATH, resourceVersion=before, resourceVersionMatch="Exact")
    assert (exact.status, exact.document["reason"]) == (410, "Expired")

    query = {"limit": "9", "continue": page["metadata"]["continue"], **PROXIED}
    late = server.ask("GET", PATH, **query)
    assert (late.status, late.document["reason"]) == (410, "Expired")
    query["continue"] = late.document["metadata"]["continue"]
    rest = server.ask("GET", PATH, **query).document
    assert "s3" not in names(rest["items"]), "the rest is that of now"
    assert set(names(page["items"] + rest["items"])) == {"s1", "s2"}

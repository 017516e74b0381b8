"""The objects in force, and what a change altered."""

from kproxy.core.objects import Kind
from kproxy.core.store import Deleted, Difference, Replaced, Store, Upserted
from tests.support.core.things import a_node, a_service, key

WEB, API = a_service(), a_service("api")
NEWER = a_service(affinity_timeout_s=60)


def held(*objects):
    store = Store()
    store.apply(Replaced(Kind.SERVICE, objects))
    return store


def test_an_object_is_added_changed_and_removed():
    store = Store()

    assert store.apply(Upserted(WEB)) == [Difference(None, WEB)]
    assert store.apply(Upserted(NEWER)) == [Difference(WEB, NEWER)]
    assert store.get(Kind.SERVICE, key("web")) is NEWER
    assert store.apply(Deleted(Kind.SERVICE, key("web"))) == [Difference(NEWER, None)]
    assert store.get(Kind.SERVICE, key("web")) is None
    assert not store.listed(Kind.SERVICE)


def test_what_says_nothing_new_alters_nothing():
    store = held(WEB)

    assert store.apply(Upserted(a_service())) == []
    assert store.apply(Replaced(Kind.SERVICE, (a_service(),))) == []
    assert store.apply(Deleted(Kind.SERVICE, key("api"))) == []


def test_what_a_list_lacks_is_gone():
    store = held(WEB, API)

    assert store.apply(Replaced(Kind.SERVICE, (NEWER,))) == [
        Difference(API, None),
        Difference(WEB, NEWER),
    ]
    assert list(store.all(Kind.SERVICE)) == [NEWER]


def test_a_list_is_of_one_kind():
    store = held(WEB)
    store.apply(Upserted(a_node()))
    store.apply(Replaced(Kind.SERVICE, ()))

    assert list(store.all(Kind.NODE)) == [a_node()]
    assert store.listed(Kind.SERVICE)
    assert not store.listed(Kind.NODE)


def test_an_object_that_a_list_holds_twice_is_there_once():
    store = held(WEB, NEWER)

    assert list(store.all(Kind.SERVICE)) == [NEWER]

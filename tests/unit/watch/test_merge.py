"""Which objects are in force when all files are taken together."""

from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.objects import Kind, ObjectKey
from kproxy.core.store import Deleted, Replaced, Store, Upserted
from kproxy.watch.manifests.content import read_content
from kproxy.watch.manifests.merge import Merged
from tests.unit.watch.samples import service, services


def content(text):
    return read_content("x.yaml", text.encode())


def in_force(merged):
    return services(o for replaced in merged.everything() for o in replaced.objects)


def after(merged, path, text):
    merged.take(path, content(text))
    return merged.step()


def test_only_what_changed_is_told():
    merged = Merged()
    step = after(merged, "a", service("x", 1) + service("y", 2))
    assert [type(change) for change in step.changes] == [Upserted, Upserted]
    step = after(merged, "a", service("x", 1) + service("y", 3))
    assert services(change.object for change in step.changes) == {"y": 3}
    assert after(merged, "a", service("y", 3) + "# moved\n" + service("x", 1)).changes == ()
    step = after(merged, "a", service("y", 3))
    assert step.changes == (Deleted(Kind.SERVICE, ObjectKey("default", "x")),)
    merged.drop("a")
    assert merged.step().changes == (Deleted(Kind.SERVICE, ObjectKey("default", "y")),)


def test_everything_names_every_kind():
    assert [r.kind for r in Merged().everything()] == list(Kind)


def test_an_invalid_object_leaves_its_last_good_version_in_force():
    merged = Merged()
    after(merged, "a", service("x", 1) + service("y", 2))
    step = after(merged, "a", service("x", 0) + service("y", 3))
    assert services(change.object for change in step.changes) == {"y": 3}
    assert in_force(merged) == {"x": 1, "y": 3}
    after(merged, "a", service("y", 3))
    assert in_force(merged) == {"y": 3}


def test_a_syntax_error_leaves_the_whole_file_in_force():
    merged = Merged()
    after(merged, "a", service("x", 1) + service("y", 2))
    assert after(merged, "a", "a: [").changes == ()
    assert in_force(merged) == {"x": 1, "y": 2}


def test_a_document_that_cannot_be_told_leaves_what_is_missing_in_force():
    merged = Merged()
    after(merged, "a", service("x", 1) + service("y", 2))
    after(merged, "a", service("x", 1) + service("y", 2).replace("kind: Service\n", ""))
    assert in_force(merged) == {"x": 1, "y": 2}


def test_an_object_invalid_from_the_start_contributes_nothing():
    merged = Merged()
    assert after(merged, "a", service("x", 0)).changes == ()


def test_the_first_path_counts_and_the_next_takes_over():
    merged = Merged()
    after(merged, "b", service("x", 2))
    step = after(merged, "a", service("x", 1))
    assert in_force(merged) == {"x": 1}
    assert [p.text() for p in step.disputed] == ["b: Service default/x: is also in a, which counts"]
    assert [p.text() for p in merged.disputes()] == [p.text() for p in step.disputed]
    step = after(merged, "b", service("x", 3))
    assert (step.changes, step.disputed) == ((), ())
    step = after(merged, "c", service("x", 4))
    assert len(step.disputed) == 1
    assert "(and in c)" in step.disputed[0].text()
    merged.drop("a")
    merged.drop("c")
    step = merged.step()
    assert in_force(merged) == {"x": 3}
    assert [(str(ref), path) for ref, path in step.settled] == [("Service default/x", "b")]
    assert merged.disputes() == ()


files = st.dictionaries(
    st.sampled_from("abc"), st.dictionaries(st.sampled_from("xyz"), st.integers(1, 3)), max_size=3
)


@given(st.lists(files, min_size=1, max_size=6))
def test_only_the_last_files_matter(history):
    """However we got here, what is in force is what the last files say."""
    merged, store = Merged(), Store()
    known: set[str] = set()
    for state in history:
        for path in known - state.keys():
            merged.drop(path)
        for path, ports in state.items():
            merged.take(path, content("".join(service(n, p) for n, p in ports.items())))
        known = set(state)
        for change in merged.step().changes:
            assert store.apply(change), "a change that changes nothing"
    fresh = Merged()
    for path, ports in history[-1].items():
        fresh.take(path, content("".join(service(n, p) for n, p in ports.items())))
    fresh.step()
    assert in_force(merged) == in_force(fresh)
    assert services(store.all(Kind.SERVICE)) == in_force(fresh)
    assert sorted(p.text() for p in merged.disputes()) == sorted(p.text() for p in fresh.disputes())
    assert store.apply(Replaced(Kind.SERVICE, merged.everything()[0].objects)) == []

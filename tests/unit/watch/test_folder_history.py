"""However a folder came about, only what it holds counts."""

import asyncio
import shutil

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kproxy.watch.manifests.source import load
from tests.unit.watch.samples import put, run, service, services

contents = st.dictionaries(st.sampled_from("xyz"), st.integers(1, 3), max_size=3)
paths = st.sampled_from(["a.yaml", "b.yml", "s/a.yaml", "s/t/b.yaml"])
operations = st.one_of(
    st.tuples(st.just("put"), paths, contents),
    st.tuples(st.just("write"), paths, contents),
    st.tuples(st.just("delete"), paths, contents),
    st.tuples(st.just("move"), paths, paths),
    st.tuples(st.just("move folder"), st.sampled_from(["s", "s/t", "u"]), st.just("u")),
    st.tuples(st.just("wait"), paths, contents),
)


def operate(root, what, first, second):
    """Do one thing to the folder; a thing that cannot be done is left out."""
    path = root / first
    if what in ("put", "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(service(name, port) for name, port in second.items())
        put(path, text) if what == "put" else path.write_text(text)
    elif what == "delete":
        path.unlink(missing_ok=True)
    elif path.exists() and (root / second).parent.exists() and not (root / second).exists():
        path.rename(root / second)


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(operations, min_size=1, max_size=12))
def test_any_way_to_a_folder_ends_in_what_the_folder_holds(tmp_path, history):
    """However the folder came about, the source ends where a fresh start begins."""
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()

    async def story(follower):
        for what, first, second in history:
            if what == "wait":
                await asyncio.sleep(0.1)
            else:
                operate(tmp_path, what, first, second)
        wanted = set(load(tmp_path).objects)
        await follower.until(lambda: set(follower.objects()) == wanted)
        assert services(follower.objects()) == services(wanted)

    run(tmp_path, story)

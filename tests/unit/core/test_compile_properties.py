"""However the objects came to be what they are, the tables are what these objects yield."""

from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.node_rules import Surroundings, node_rules
from kproxy.core.objects import Kind
from kproxy.core.store import Replaced, Store
from kproxy.core.table import ForwardingTable, NodePort, Use, Via
from tests.support.core.universe import CHANGES, CLUSTERS, SETTINGS, batches
from tests.support.effort import examples


def fresh(options, store):
    """Compile the objects of a store from nothing."""
    compiler = Compiler(options)
    compiler.apply([Replaced(kind, tuple(store.all(kind))) for kind in Kind])
    return compiler


@examples(100)
@given(st.data(), SETTINGS, CLUSTERS, CHANGES)
def test_only_the_objects_in_force_matter(data, options, cluster, changes):
    store = Store()
    compiler = Compiler(options)
    folded = {}
    replayed = {
        family: ForwardingTable(family, node_rules(options, Surroundings(), family))
        for family in Family
    }
    for batch in data.draw(batches([*cluster, *changes])):
        for change in batch:
            store.apply(change)
        for family, changed in compiler.apply(batch).items():
            assert changed
            replayed[family].apply(changed)
            folded[family] = folded[family].then(changed) if family in folded else changed

    expected = fresh(options, store)
    for family, table in expected.tables.items():
        assert compiler.tables[family] == table
        assert replayed[family] == table, "the changes tell everything"
        once = ForwardingTable(family, node_rules(options, Surroundings(), family))
        once.apply(folded[family])
        assert once == table, "changes can be folded"
    assert compiler.conflicts() == expected.conflicts()


@examples(50)
@given(SETTINGS, CLUSTERS, CHANGES)
def test_what_is_yielded_differs_from_what_was(options, cluster, changes):
    compiler = Compiler(options)
    for change in [*cluster, *changes]:
        before = {
            family: (dict(t.service_ports), set(t.cluster_ips), dict(t.health_checks), t.rules)
            for family, t in compiler.tables.items()
        }
        ready = compiler.ready
        for family, changed in compiler.apply([change]).items():
            service_ports, cluster_ips, health_checks, rules = before[family]
            assert all(service_ports.get(k) != v for k, v in changed.service_ports.items())
            assert all((k in cluster_ips) != v for k, v in changed.cluster_ips.items())
            assert all(health_checks.get(k) != v for k, v in changed.health_checks.items())
            assert changed.rules is None or changed.rules != rules or not ready


@examples(50)
@given(SETTINGS, CLUSTERS)
def test_saying_it_again_changes_nothing(options, cluster):
    compiler = Compiler(options)
    compiler.apply(cluster)

    assert compiler.apply(cluster) == {}
    assert compiler.apply([]) == {}


@examples(60)
@given(SETTINGS, CLUSTERS)
def test_a_table_keeps_its_promises(options, cluster):
    compiler = Compiler(options)
    compiler.apply(cluster)
    for family, table in compiler.tables.items():
        owners = {}
        for key, entry in table.service_ports.items():
            assert entry.key == key
            for frontend in entry.frontends:
                where = (frontend.address if not isinstance(frontend, NodePort) else "",)
                assert owners.setdefault((*where, key.protocol, frontend.port), key) == key
            uses = {entry.internal if getattr(f, "via", None) is Via.CLUSTER_IP else entry.external
                    for f in entry.frontends}  # fmt: skip
            assert entry.targets or Use.TARGETS not in uses
            assert entry.local_targets or Use.LOCAL_TARGETS not in uses
            assert entry.sources is None or entry.sources
            assert all(target.local for target in entry.local_targets)
            texts = [str(target) for target in entry.targets]
            assert texts == sorted(set(texts))
        assert len(table.vips) + len(table.node_ports) == len(owners)
        assert table.rules.node_port_addresses
        assert table.family is family

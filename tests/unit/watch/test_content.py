"""What one file says: objects, problems with their lines, and what stays in force."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.objects import Kind, ObjectKey
from kproxy.watch.manifests.content import MAX_PROBLEMS, Ref, read_content
from kproxy.watch.manifests.problems import Severity
from tests.unit.watch.samples import service, services

WEB = service("web")


def read(text, path="web.yaml"):
    return read_content(path, text if isinstance(text, bytes) else text.encode())


def lines(content):
    return [problem.text() for problem in content.problems]


def names(content):
    return sorted(services(content.objects.values()))


def test_an_invalid_object_costs_its_neighbours_nothing():
    content = read(service("a") + service("b", 70000) + service("c", address="10.96.0.3"))
    assert names(content) == ["a", "c"]
    assert content.rejected == {Ref(Kind.SERVICE, ObjectKey("default", "b"))}
    assert not content.obscure
    assert len(content.problems) == 1
    assert lines(content)[0].startswith("web.yaml:13: Service ")
    assert "spec.ports[0].port: " in lines(content)[0]
    assert lines(content)[0].endswith("(value 70000)")


def test_a_wrong_type_is_named_with_its_line():
    (line,) = lines(read(WEB + service("b", "yes")))
    assert line.startswith("web.yaml:13: Service ")
    assert "spec.ports[0].port" in line
    assert line.endswith("(value yes)"), "as it is written, and not as YAML understands it"


@pytest.mark.parametrize("part", ["spec: 3", "metadata: {name: b, labels: 3}"])
def test_an_object_of_the_wrong_shape_is_still_told_by_its_name(part):
    text = f"apiVersion: v1\nkind: Service\nmetadata: {{name: b}}\nspec: {{}}\n{part}\n"
    lines_kept = [row for row in text.split("\n") if row == part or not row.startswith(part[:5])]
    content = read("\n".join(lines_kept))
    assert content.rejected == {Ref(Kind.SERVICE, ObjectKey("default", "b"))}
    assert not content.obscure


def test_a_missing_field_is_placed_at_what_lacks_it():
    text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  ports:\n  - name: x\n"
    (line,) = lines(read(text))
    assert line.startswith("web.yaml:7: ")
    assert "port" in line


def as_list(kind, version="v1", *, bare=False):
    items = []
    for i in range(5):
        item = {"metadata": {"name": f"s{i}", "labels": {"a.b/c": "d"}}}
        item["spec"] = {"clusterIP": f"10.96.0.{i + 1}", "ports": [{"port": 80}]}
        items.append(item if bare else {"apiVersion": "v1", "kind": "Service", **item})
    items[3]["spec"]["ports"].append({"name": "b", "port": -3})
    return {"apiVersion": version, "kind": kind, "items": items}


@pytest.mark.parametrize("path", ["l.json", "l.yaml"])
@pytest.mark.parametrize(("kind", "bare"), [("List", False), ("ServiceList", True)])
def test_a_list_is_its_items_with_their_own_lines(path, kind, bare):
    text = json.dumps(as_list(kind, bare=bare), indent=2)
    content = read(text, path)
    assert names(content) == ["s0", "s1", "s2", "s4"]
    (line,) = lines(content)
    where = next(i for i, t in enumerate(text.split("\n"), 1) if "-3" in t)
    assert line.startswith(f"{path}:{where}: Service ")
    assert "spec.ports[1].port" in line


def test_the_line_is_right_in_a_yaml_list():
    text = "# a comment\n---\n" + WEB + "apiVersion: v1\nkind: List\nitems:\n"
    for i, port in enumerate((1, 2, 99999)):
        body = service(f"s{i}", port).removesuffix("---\n")
        text += "".join(
            ("- " if n == 0 else "  ") + row + "\n" for n, row in enumerate(body.split("\n")[:-1])
        )
    content = read(text)
    (line,) = lines(content)
    where = next(i for i, t in enumerate(text.split("\n"), 1) if "99999" in t)
    assert line.startswith(f"web.yaml:{where}: ")
    assert names(content) == ["s0", "s1", "web"]


def test_a_list_in_a_list_and_an_empty_list():
    inner = as_list("ServiceList", bare=True)
    outer = {"apiVersion": "v1", "kind": "List", "items": [inner, {**inner, "items": None}]}
    assert names(read(json.dumps(outer), "a.json")) == ["s0", "s1", "s2", "s4"]


def test_lists_nested_without_end_are_refused():
    value: dict = {"apiVersion": "v1", "kind": "List", "items": []}
    for _ in range(50):
        value = {"apiVersion": "v1", "kind": "List", "items": [value]}
    (line,) = lines(read(json.dumps(value), "a.json"))
    assert "too many" in line


def test_documents_of_a_json_file_may_follow_each_other():
    item = as_list("List")["items"][0]
    text = json.dumps(item, indent=1)
    other = {**item, "metadata": {"name": "other"}}
    assert names(read(text + "\n" + json.dumps(other), "a.json")) == ["other", "s0"]


@pytest.mark.parametrize(
    ("path", "text", "start"),
    [
        ("a.yaml", b"a: [\n", "a.yaml:2: "),
        ("a.json", b'{\n"a": 1,\n}', "a.json:3: "),
        ("a.json", b'{"a": NaN}', "a.json:1: NaN"),
        ("a.json", b"[" * 100_000, "a.json: nested too deeply"),
        ("a.json", b'{"kind": "List", "items": [{"a": tru}]}', "a.json:1: "),
        ("a.yaml", b"a: 1\nb: \xff\n", "a.yaml:2: is not UTF-8"),
        ("a.yaml", b"a: 1\nb: \0\n", "a.yaml:2: a NUL byte"),
        ("a.yaml", "a: 1".encode("utf-16"), "a.yaml:1: is UTF-16"),
        ("a.yaml", b"- 1\n", "a.yaml:1: must be an object"),
        ("a.yaml", b"kind: Service\n", "a.yaml:1: apiVersion: must be set"),
        ("a.yaml", b"apiVersion: v1\nkind: 7\n", "a.yaml:2: kind: must be text (value 7)"),
        ("a.json", b'{"apiVersion": "v1", "kind": "List", "items": 3}', "a.json:1: items: must"),
        ("a\n\udcff.yaml", b"-", "a\\n\\udcff.yaml:1: must be"),
    ],
)
def test_what_cannot_be_understood_keeps_the_last_good_objects(path, text, start):
    content = read(text, path)
    assert content.obscure
    (line,) = lines(content)
    assert line.startswith(start)
    assert "\n" not in line


@pytest.mark.parametrize("text", [b"", b"\n# nothing\n", b"---\n---\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_no_error(text):
    content = read(text)
    assert (content.problems, content.objects, content.obscure) == ((), {}, False)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm():
    content = read(b"\xef\xbb\xbf" + (WEB + service("b", 0)).replace("\n", "\r\n").encode())
    assert names(content) == ["web"]
    assert lines(content)[0].startswith("web.yaml:13: ")


def test_kinds_that_nobody_needs_are_ignored_quietly():
    text = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n---\n"
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: x}\n---\n"
        "apiVersion: v1\nkind: ConfigMapList\nitems: [{metadata: {name: a}}]\n---\n"
    )
    content = read(text + WEB)
    assert content.problems == ()
    assert not content.unused
    assert content.ignored == 3
    assert names(content) == ["web"]


def test_kinds_that_look_needed_are_named_once():
    text = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: x}\n---\n" * 3
    text += "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: y}\n"
    unused = [problem.text() for problem in read(text).unused.values()]
    assert len(unused) == 2
    assert unused[0].startswith("web.yaml:1: Endpoints default/x: is not used; ")
    assert unused[1].startswith("web.yaml:13: EndpointSlice default/y: ")
    assert "discovery.k8s.io/v1" in unused[1]


SPEC = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports: [{port: 80}]\n"


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ("  type: ClusterIP\n", ["spec.clusterIP"]),
        ("  type: NodePort\n", ["spec.clusterIP"]),
        ("  type: NodePort\n  clusterIP: 10.96.0.1\n", ["spec.ports[0].nodePort"]),
        ("  type: LoadBalancer\n  clusterIP: 10.96.0.1\n", ["spec.ports[0].nodePort"]),
        (
            "  type: LoadBalancer\n  clusterIP: 10.96.0.1\n"
            "  allocateLoadBalancerNodePorts: false\n",
            [],
        ),
        (
            "  type: LoadBalancer\n  clusterIP: 10.96.0.1\n"
            "  allocateLoadBalancerNodePorts: false\n  externalTrafficPolicy: Local\n",
            ["spec.healthCheckNodePort"],
        ),
        ("  clusterIP: 10.96.0.1\n", []),
        ("  clusterIP: None\n", []),
        ("  type: ExternalName\n  externalName: example.org\n", []),
    ],
)
def test_what_an_api_server_would_have_allocated_is_asked_for(spec, fields):
    content = read(SPEC + spec)
    assert [problem.field for problem in content.problems] == fields
    assert all(problem.severity is Severity.WARNING for problem in content.problems)
    assert len(content.objects) == 1
    if fields == ["spec.ports[0].nodePort"]:
        assert content.problems[0].line == 5


def test_an_object_twice_in_a_file_is_an_error_and_the_first_counts():
    content = read(service("a", 1) + service("b", 2) + service("a", 3))
    assert services(content.objects.values()) == {"a": 1, "b": 2}
    (line,) = lines(content)
    assert line.startswith("web.yaml:15: Service default/a: is in this file twice")


def test_an_object_without_a_name_keeps_what_is_no_longer_found():
    content = read("apiVersion: v1\nkind: Service\nmetadata: {}\nspec: {}\n---\n" + WEB)
    assert content.obscure
    assert names(content) == ["web"]


def test_problems_without_end_are_counted():
    content = read("".join(service(f"s{i}", 0) for i in range(MAX_PROBLEMS + 7)))
    assert len(content.problems) == MAX_PROBLEMS + 1
    assert lines(content)[-1] == "web.yaml: 7 more problems in this file"
    assert all(problem.line is not None for problem in content.problems[:-1])


def test_dates_in_fields_that_nobody_reads_do_no_harm():
    text = WEB.replace("{name: web}", "{name: web, creationTimestamp: 2024-01-01T00:00:00Z}")
    assert read(text).problems == ()


@given(st.binary(max_size=200), st.sampled_from(["a.yaml", "a.json"]))
def test_no_bytes_crash_the_reader(data, path):
    content = read_content(path, data)
    assert all(problem.text().isprintable() for problem in content.problems)


@given(
    st.integers(0, 400),
    st.integers(0, 20),
    st.binary(max_size=12)
    | st.sampled_from([b"- ", b": ", b"&a", b"*a", b"\n", b"{", b"'", b"!!"]),
    st.booleans(),
)
def test_damage_gives_an_error_or_other_objects_but_never_a_crash(start, length, junk, as_json):
    text = WEB + service("b", address="10.96.0.2")
    if as_json:
        text = json.dumps(as_list("List"))
    data = text.encode()
    damaged = data[:start] + junk + data[start + length :]
    content = read_content("a.json" if as_json else "a.yaml", damaged)
    if content.obscure:
        assert content.problems


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0xD7FF), max_size=30))
def test_damage_inside_one_document_costs_no_neighbour(value):
    name = json.dumps(value)
    damaged = f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{x: 1, x: 2}}\n"
    content = read(service("a") + damaged + "---\n" + service("c", address="10.96.0.3"))
    assert names(content) == ["a", "c"]
    assert len(content.problems) == 1
    assert content.obscure, "it may be any object that was in this file"

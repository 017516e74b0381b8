"""C to bytecode: what is compiled, what it takes, and which kept bytecode is trusted."""

import ctypes
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backends.ebpf import compiler, headers, unit
from backends.ebpf.compiler import CompileError, compile_unit, flatten, load_unit, request
from backends.kernel.bpf.maps import NO_PREALLOC, MapType, Shape
from backends.kernel.bpf.programs import AttachType, ProgramType
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

SAMPLE = """
#include <uapi/linux/bpf.h>
#include <kproxy/service_maps.h>
#include <kproxy/service.h>

struct storage { u64 words[3]; };

BPF_F_TABLE("hash", struct frontend_key, struct storage, own_table, 500, BPF_F_NO_PREALLOC);
BPF_SK_STORAGE(per_socket, struct storage);
BPF_RINGBUF_OUTPUT(events, 2);

static inline int unused(void) { return 0; }

int connect4(struct bpf_sock_addr *ctx)
{
	struct frontend_key key = { .port = ctx->user_port };

	return own_table.lookup(&key) ? 0 : 1;
}

int connect4_stage(struct bpf_sock_addr *ctx)
{
	return KPROXY_FAMILY;
}

int ingress(struct __sk_buff *skb)
{
	return 0;
}
"""

SHARED = """
#include <uapi/linux/bpf.h>

int ingress(struct __sk_buff *skb)
{
	return 0;
}
"""

LAST_INSTRUCTION = b"\x95" + bytes(7)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "sample.bpf.c"
    path.write_text(SAMPLE)
    return path


@pytest.fixture(scope="session")
def tree(bytecode):
    return headers.find(bytecode / "headers", os.environ)


@pytest.fixture
def cache(tmp_path, tree):
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "headers").symlink_to(tree.parent)
    return folder


@pytest.fixture(scope="session")
def memory():
    """What was compiled already: to do so again would come to the same."""
    return {}


@pytest.fixture(autouse=True)
def compiled(monkeypatch, memory):
    """What `load_unit` has compiled from here on."""
    names = []

    def compile_and_say(wanted, tree):
        names.append(wanted.name)
        compiled_by = wanted.digest, compiler.BCC_VERSION
        if compiled_by not in memory:
            memory[compiled_by] = compile_unit(wanted, tree)
        return memory[compiled_by]

    monkeypatch.setattr(compiler, "compile_unit", compile_and_say)
    return names


def test_a_unit_is_what_the_source_says(source, cache):
    found = load_unit(source, Family.IPV4, cache=cache)

    assert found.maps["own_table"] == Shape(MapType.HASH, 8, 24, 500, NO_PREALLOC)
    assert found.maps["per_socket"] == Shape(MapType.SK_STORAGE, 4, 24, 0, NO_PREALLOC)
    assert found.maps["events"].type == MapType.RINGBUF
    kinds = {name: (code.type, code.attach_type) for name, code in found.programs.items()}
    hook = (ProgramType.CGROUP_ADDRESS, AttachType.CONNECT4)
    assert kinds == {"connect4": hook, "connect4_stage": hook, "ingress": (ProgramType.TC, 0)}
    assert list(found.programs["connect4"].maps.values()) == ["own_table"]
    assert found.name == "sample.bpf.c for IPv4"


def test_each_family_has_bytecode_of_its_own(source, cache, compiled):
    four, six = (load_unit(source, family, cache=cache) for family in Family)

    assert compiled == ["sample.bpf.c for IPv4", "sample.bpf.c for IPv6"]
    assert (four.maps["own_table"].key_size, six.maps["own_table"].key_size) == (8, 20)
    code = [found.programs["connect4_stage"].instructions for found in (four, six)]
    assert code[0] != code[1]


def test_what_does_not_ask_for_the_family_is_compiled_once_for_all(source, cache, compiled):
    source.write_text(SHARED)
    with ThreadPoolExecutor() as threads:
        four, six = threads.map(lambda family: load_unit(source, family, cache=cache), Family)

    assert four == six
    assert compiled == ["sample.bpf.c"]


def test_compiling_takes_no_privilege(source, tree):
    """Not even that to create maps: an image is built without."""
    child = os.fork()
    if not child:
        status = 1
        try:
            for capability in (39, 21):  # CAP_BPF, CAP_SYS_ADMIN; 24 is PR_CAPBSET_DROP
                ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
            found = compile_unit(request(source, Family.IPV4), tree)
            status = int(len(found.programs) != 3)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_same_source_is_compiled_once(source, cache, compiled):
    found = [load_unit(source, Family.IPV4, cache=cache) for _ in range(2)]

    assert found[0] == found[1]
    assert len(compiled) == 1
    source.write_text(SAMPLE.replace("? 0 : 1", "? 1 : 0"))
    assert load_unit(source, Family.IPV4, cache=cache) != found[0]
    assert len(compiled) == 2


def test_one_compiler_runs_at_a_time(source, cache, monkeypatch):
    running = []

    def alone(wanted, tree):
        running.append(wanted.name)
        assert len(running) == 1
        found = compile_unit(wanted, tree)
        running.clear()
        return found

    monkeypatch.setattr(compiler, "compile_unit", alone)
    with ThreadPoolExecutor() as threads:
        found = threads.map(lambda family: load_unit(source, family, cache=cache), Family)
        assert len(list(found)) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data.replace(LAST_INSTRUCTION, LAST_INSTRUCTION[:4] + b"\1\0\0\0"),
        lambda data: b"kproxy bytecode 0\n" + data.partition(b"\n")[2],
        lambda data: b"",
    ],
    ids=["cut", "flipped", "of another format", "empty"],
)
def test_kept_bytecode_is_trusted_only_as_it_was_written(source, cache, compiled, spoil):
    found = load_unit(source, Family.IPV4, cache=cache)
    file = cache / found.digest
    whole = file.read_bytes()
    file.write_bytes(spoil(whole))

    assert load_unit(source, Family.IPV4, cache=cache) == found
    assert len(compiled) == 2
    assert file.read_bytes() == whole


def test_bytecode_under_the_name_of_another_is_not_trusted(source, cache, compiled):
    four, six = (load_unit(source, family, cache=cache) for family in Family)
    shutil.copy(cache / six.digest, cache / four.digest)

    assert load_unit(source, Family.IPV4, cache=cache) == four
    assert len(compiled) == 3


def test_another_compiler_compiles_again_and_a_missing_one_does_not(
    source, cache, compiled, monkeypatch, tmp_path
):
    load_unit(source, Family.IPV4, cache=cache)
    version = tmp_path / "version.py"
    monkeypatch.setattr(compiler, "BCC_VERSION", version)
    load_unit(source, Family.IPV4, cache=cache)
    assert len(compiled) == 1

    version.write_text("__version__ = '99.0'\n")
    assert load_unit(source, Family.IPV4, cache=cache).compiler == "bcc 99.0"
    assert len(compiled) == 2


def test_shipped_bytecode_needs_neither_compiler_nor_headers_nor_cache(
    source, cache, monkeypatch, tmp_path
):
    found = load_unit(source, Family.IPV6, cache=cache)
    monkeypatch.setattr(compiler, "SHIPPED", cache)
    monkeypatch.setattr(compiler, "_INTERPRETER", "/nowhere/python3")
    monkeypatch.setattr(compiler, "BCC_VERSION", tmp_path / "nothing")

    assert load_unit(source, Family.IPV6, cache=Path("/proc/no/such/place")) == found


def test_a_folder_is_filled_to_be_shipped(tmp_path, tree, monkeypatch, capsys):
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tree))
    sources = tmp_path / "sources"
    shutil.copytree(compiler.SOURCES / "include", sources / "include")
    (sources / "sample.bpf.c").write_text(SAMPLE)
    (sources / "shared.bpf.c").write_text(SHARED)
    monkeypatch.setattr(compiler, "SOURCES", sources)
    compiler.main([str(tmp_path / "out")])

    kept = [unit.decode(file.read_bytes()) for file in (tmp_path / "out").iterdir()]
    names = sorted(each.name for each in kept)
    assert names == ["sample.bpf.c for IPv4", "sample.bpf.c for IPv6", "shared.bpf.c"]
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert not list((tmp_path / "out").glob(".*"))
    assert {file.stat().st_mode & 0o004 for file in (tmp_path / "out").iterdir()} == {0o004}
    assert (tmp_path / "out").stat().st_mode & 0o005 == 0o005


def test_a_folder_that_takes_nothing_costs_a_warning_alone(source, tree, monkeypatch, caplog):
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tree))
    found = load_unit(source, Family.IPV4, cache=Path("/proc/no/such/place"))

    assert found.programs
    assert "not kept in /proc/no/such/place, compiled at each start" in caplog.text


def test_what_could_not_be_kept_leaves_nothing_half(source, cache, caplog):
    (cache / request(source, Family.IPV4).digest).mkdir()
    load_unit(source, Family.IPV4, cache=cache)

    assert "compiled at each start" in caplog.text
    assert not list(cache.glob(".new-*"))


def test_an_error_names_file_line_and_reason(source, tree):
    source.write_text(SAMPLE.replace("return KPROXY_FAMILY", "return KPROXY_FAMLY"))
    with pytest.raises(CompileError) as refusal:
        compile_unit(request(source, Family.IPV4), tree)

    line = SAMPLE[: SAMPLE.index("return KPROXY_FAMILY")].count("\n") + 1
    assert str(refusal.value).startswith(
        f"compiling sample.bpf.c for IPv4: sample.bpf.c:{line}:9: error: use of undeclared"
    )
    assert "^" in refusal.value.text


def test_a_warning_is_an_error(source, tree):
    source.write_text(SAMPLE.replace("return KPROXY_FAMILY", "int x; return x"))
    with pytest.raises(CompileError, match=r"\[-Werror,-Wuninitialized\]"):
        compile_unit(request(source, Family.IPV4), tree)


def stage(name):
    return f"int {name}(struct __sk_buff *skb)\n{{\n\treturn 1;\n}}\n"


def test_stages_are_numbered_as_they_stand(source, tree):
    numbers = "enum stage { STAGE_OPEN, STAGE_REFUSE,\n\tSTAGES };\n"
    source.write_text(SAMPLE + numbers + stage("stage_open") + stage("stage_refuse"))
    assert compile_unit(request(source, Family.IPV4), tree).stages == ["stage_open", "stage_refuse"]

    source.write_text(SAMPLE + numbers + stage("stage_refuse") + stage("stage_open"))
    with pytest.raises(BackendError, match="enum stage numbers"):
        compile_unit(request(source, Family.IPV4), tree)


def test_what_is_compiled_for_one_family_alone_is_in_its_unit_alone(source, cache):
    source.write_text(SAMPLE + "#if KPROXY_FAMILY == 6\n" + stage("egress") + "#endif\n")
    four, six = (load_unit(source, family, cache=cache) for family in Family)

    assert six.programs.keys() - four.programs.keys() == {"egress"}


def test_a_program_of_no_known_type_is_refused(source, tree):
    source.write_text(SAMPLE + "int odd(void *context)\n{\n\treturn 0;\n}\n")
    with pytest.raises(BackendError, match="no context by which to know the type of odd"):
        compile_unit(request(source, Family.IPV4), tree)


def test_a_missing_compiler_is_named_with_the_remedy(source, tree, tmp_path, monkeypatch):
    child = tmp_path / "child.py"
    text = Path(compiler.__file__).with_name("bcc_child.py").read_text()
    child.write_text(text.replace("from bcc import lib", "from no_bcc import lib"))
    monkeypatch.setattr(compiler, "_CHILD", child)
    with pytest.raises(BackendError, match=r"No module named 'no_bcc'; install python3-bpfcc"):
        compile_unit(request(source, Family.IPV4), tree)

    monkeypatch.setattr(compiler, "_INTERPRETER", "/nowhere/python3")
    with pytest.raises(BackendError, match="/nowhere/python3"):
        compile_unit(request(source, Family.IPV4), tree)


def test_each_header_of_ours_comes_once_and_keeps_its_lines(source):
    text = flatten(source)

    assert text.count("struct frontend_key {") == 1
    assert text.count('#line 1 "kproxy/service.h"') == 1
    assert "#include <kproxy/" not in text
    assert "#include <uapi/linux/bpf.h>" in text

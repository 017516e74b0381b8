"""Programs compiled, loaded, refused and run."""

import errno
import select
import struct
from dataclasses import replace

import pytest

from backends.kernel.bpf import btf, objects, programs
from backends.kernel.bpf.programs import AttachType, Code, ProgramType, VerifierRefusal
from backends.kernel.bpf.ring import RingBuffer
from backends.kernel.bpf.syscall import KernelRefusal
from tests.support.ebpf.sources import Loaded

pytestmark = pytest.mark.kernel

COUNTING = """
#include <uapi/linux/bpf.h>
#include <uapi/linux/pkt_cls.h>

struct port { __be16 number; };
struct event { u32 mark, length, protocol; };

BPF_F_TABLE("hash", struct port, u64, packets_by_destination_port, 1000, BPF_F_NO_PREALLOC);
BPF_PROG_ARRAY(stages, 4);
BPF_RINGBUF_OUTPUT(events, 1);

int ingress(struct __sk_buff *skb)
{
	struct event *event = events.ringbuf_reserve(sizeof(*event));

	if (event) {
		event->mark = skb->mark;
		event->length = skb->len;
		event->protocol = 0;
		events.ringbuf_submit(event, 0);
	}
	skb->mark = 7;
	stages.call(skb, 2);
	return TC_ACT_OK;
}

int refused(struct __sk_buff *skb)
{
	struct port port = {};
	u64 one = 1;

	bpf_skb_load_bytes(skb, 36, &port, sizeof(port));
	packets_by_destination_port.update(&port, &one);
	return TC_ACT_SHOT;
}
"""
ASKING = """
#include <uapi/linux/bpf.h>
#include <uapi/linux/pkt_cls.h>
#define KFUNC(number) (void *)(0x6b660000 + number)

struct nf_conn;
struct bpf_ct_opts { s32 netns, error; u8 protocol, direction, reserved[2]; };

static struct nf_conn *(*const bpf_skb_ct_lookup)(struct __sk_buff *skb, void *tuple, u32 size,
	struct bpf_ct_opts *opts, u32 opts_size) = KFUNC(1);
static void (*const bpf_ct_release)(struct nf_conn *connection) = KFUNC(2);
static int (*const bpf_of_no_kernel)(int) = KFUNC(3);

int ingress(struct __sk_buff *skb)
{
	struct bpf_ct_opts opts = { .netns = -1, .protocol = 6 };
	struct bpf_sock_tuple tuple = {};
	struct nf_conn *connection;

	connection = bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv4), &opts, sizeof(opts));
	if (connection)
		bpf_ct_release(connection);
	return bpf_of_no_kernel(1) ? TC_ACT_SHOT : -opts.error;
}
"""
MISUSING = ASKING.replace("(skb, &tuple,", "(skb, skb,")
PACKET = bytes(36) + struct.pack("!H", 80) + bytes(20)
MARK_AT = 8


@pytest.fixture
def counting(sources):
    with Loaded(sources.unit(COUNTING)) as loaded:
        yield loaded


def test_a_compiled_program_runs_over_its_maps(counting):
    run = programs.run(counting.programs["refused"], PACKET)

    assert (run.verdict, run.data) == (2, PACKET)
    table = counting.maps["packets_by_destination_port"]
    assert dict(table.items()) == {struct.pack("!H", 80): struct.pack("=Q", 1)}


def test_a_tail_call_finds_the_next_stage_where_it_was_put(counting):
    entry, stages = counting.programs["ingress"], counting.maps["stages"]
    assert programs.run(entry, PACKET).verdict == 0

    stages.update(struct.pack("=I", 2), struct.pack("=I", counting.programs["refused"].fileno()))
    assert programs.run(entry, PACKET).verdict == 2
    number = counting.programs["refused"].number
    assert dict(stages.items()) == {struct.pack("=I", 2): struct.pack("=I", number)}


def test_a_run_takes_and_gives_a_context(counting):
    context = bytearray(192)
    struct.pack_into("=I", context, MARK_AT, 5)
    run = programs.run(counting.programs["ingress"], PACKET, context=bytes(context))

    assert struct.unpack_from("=I", run.context, MARK_AT) == (7,)


def test_a_run_is_repeated_and_timed(counting):
    entry = counting.programs["refused"]
    assert programs.run(entry, PACKET, repeat=1_000).duration_ns > 0
    assert programs.run(entry, PACKET, repeat=1_000).verdict == 2


def event(mark):
    return struct.pack("=III", mark, len(PACKET), 0)


def report(entry, mark):
    context = bytearray(192)
    struct.pack_into("=I", context, MARK_AT, mark)
    programs.run(entry, PACKET, context=bytes(context))


def test_what_programs_report_is_read_once_in_its_order(counting):
    entry, got = counting.programs["ingress"], []
    ring = RingBuffer(counting.maps["events"])
    for mark in range(1_000):  # six times what the ring holds, some of it around its end
        report(entry, mark)
        if mark % 100 == 99:
            got += ring.read(30)
            got += ring.read(1_000)
    ring.close()

    assert got == [event(mark) for mark in range(1_000)]


def test_a_ring_is_readable_while_something_is_in_it(counting):
    ring = RingBuffer(counting.maps["events"])
    assert select.select([ring], [], [], 0)[0] == []

    report(counting.programs["ingress"], 1)
    assert select.select([ring], [], [], 0)[0] == [ring]
    assert (len(ring.read(10)), ring.read(10)) == (1, [])
    assert select.select([ring], [], [], 0)[0] == []
    ring.close()


def test_what_a_full_ring_cannot_take_is_missing_and_the_rest_is_read(counting):
    entry, ring = counting.programs["ingress"], RingBuffer(counting.maps["events"])
    for mark in range(1_000):
        report(entry, mark)
    held = ring.read(1_000)
    report(entry, 1_000)

    assert held == [event(mark) for mark in range(len(held))]
    assert 0 < len(held) < 1_000
    assert ring.read(1_000) == [event(1_000)]
    ring.close()


def instructions(*each):
    return b"".join(struct.pack("=BBhi", *one) for one in each)


RETURN_0 = instructions((0xB7, 0, 0, 0), (0x95, 0, 0, 0))
READ_NOTHING = instructions((0xB7, 1, 0, 0), (0x61, 0x10, 0, 0), (0x95, 0, 0, 0))


def test_a_refused_program_names_itself_and_says_why():
    code = Code("reads_nothing", ProgramType.TC, 0, READ_NOTHING, {})
    with pytest.raises(VerifierRefusal) as refusal:
        programs.load(code, {})

    said = str(refusal.value)
    assert said.startswith("loading the program reads_nothing: EACCES (Permission denied): 1: ")
    assert said.endswith(" / R1 invalid mem access 'scalar'")
    assert "processed" in refusal.value.text


def test_a_hook_needs_its_attach_type_to_load():
    hook = Code("hook", ProgramType.CGROUP_ADDRESS, 0, RETURN_0, {})
    with pytest.raises(KernelRefusal, match="EINVAL"):
        programs.load(hook, {})
    with programs.load(replace(hook, attach_type=AttachType.CONNECT4), {}) as loaded:
        assert loaded.number > 0


def test_a_pinned_program_is_the_one_that_was_pinned(bpffs):
    program = programs.load(Code("pass", ProgramType.TC, 0, RETURN_0, {}), {})
    objects.pin(program, bpffs / "program")
    with programs.pinned(bpffs / "program") as again:
        assert again.number == program.number
        assert objects.is_same(again, program)
    program.close()


def test_functions_of_the_kernel_are_called_and_what_it_lacks_says_0(sources):
    unit = sources.unit(ASKING)
    assert unit.kfuncs == {"bpf_skb_ct_lookup", "bpf_ct_release", "bpf_of_no_kernel"}
    with Loaded(unit) as loaded:
        assert programs.run(loaded.programs["ingress"], PACKET).verdict == errno.ENOENT


def test_a_program_that_is_refused_with_functions_of_the_kernel_does_without(sources, caplog):
    with Loaded(sources.unit(MISUSING)) as loaded:
        assert programs.run(loaded.programs["ingress"], PACKET).verdict == 0
    (said,) = [each.getMessage() for each in caplog.records]
    assert said.startswith("loading the program ingress: E")
    assert said.endswith("loaded without functions of the kernel")


def test_a_module_that_is_none_has_no_type_information():
    with pytest.raises(KernelRefusal) as refusal:
        btf.of_module("kproxy_no_such")
    assert refusal.value.number == errno.ENOENT

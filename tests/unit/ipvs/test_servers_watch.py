"""Changes that others make to virtual servers are noticed in what the kernel prints of them."""

import pytest

from backends.ipvs.driver import servers_watch
from backends.ipvs.driver.servers_watch import ServersWatch
from backends.ipvs.render.entries import Place, marked_bytes, place_bytes
from backends.ipvs.render.marks import FIRST_MARK
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from kproxy.ports.data_path import BackendError
from tests.support.ipvs.printed import PRINTED

ADDRESS = {Family.IPV4: "10.96.0.{}", Family.IPV6: "fd00:96::{}"}
OURS = {
    family: [
        place_bytes(Place(address.format(1), Protocol.TCP, 80)),
        place_bytes(Place(address.format(2), Protocol.UDP, 53)),
        place_bytes(Place(address.format(3), Protocol.SCTP, 2905)),
        marked_bytes(FIRST_MARK + 7),
    ]
    for family, address in ADDRESS.items()
}
TCP = {family: ours[0] for family, ours in OURS.items()}
EVERY_S = 2.5


class Kernel:
    """What the kernel prints, what it tells else, and a clock."""

    def __init__(self, file):
        self._file = file
        self.now_s = 100.0
        self.unprinted = {}
        self.asked = 0
        self.prints(PRINTED)

    def prints(self, text):
        self._file.write_text(text)

    def prints_no_more(self):
        self._file.unlink()

    def replaces(self, old, new):
        """Print one thing where there was another."""
        text = self._file.read_text()
        assert old in text
        self.prints(text.replace(old, new))

    def clock(self):
        return self.now_s

    def ask(self, wanted):
        """Return digests of those that are told of by netlink."""
        self.asked += 1
        return {server: digest for server, digest in self.unprinted.items() if server in wanted}


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(servers_watch, "_PRINTED", tmp_path / "ip_vs")
    return Kernel(tmp_path / "ip_vs")


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


@pytest.fixture
def watch(kernel, family):
    """A watch that has read what there is, a while ago."""
    made = ServersWatch(family, kernel.ask, kernel.clock)
    made.reading()
    kernel.now_s += EVERY_S
    return made


TCP_1, SCTP_3 = "TCP  {vip1}:0050 rr {more}\n", "SCTP  {vip3}:0B59 wlc {more}\n"
UDP_2 = "UDP  {vip2}:0035 rr {more}"
BEHIND = "  -> {pod2}:1F90      Masq    1      0          0         \n"
CHANGES = {
    "another weight": (BEHIND, BEHIND.replace("Masq    1", "Masq    0")),
    "another endpoint": (TCP_1 + BEHIND, TCP_1 + BEHIND.replace("pod2", "pod9")),
    "an endpoint less": (TCP_1 + BEHIND, TCP_1),
    "an endpoint more": (SCTP_3, SCTP_3 + BEHIND),
    "another scheduler": (SCTP_3, SCTP_3.replace("wlc", "lc")),
    "a shorter affinity": (UDP_2 + "persistent 2700000", UDP_2 + "persistent 15000"),
    "a server less": (SCTP_3, ""),
    "another mark": ("FWM  C0000007 mh \n" + BEHIND, "FWM  C0000008 mh \n" + BEHIND),
    "nothing behind a mark": ("FWM  C0000007 mh \n" + BEHIND, "FWM  C0000007 mh \n"),
}  # fmt: skip
WORDS = {
    Family.IPV4: {
        "more": " ",
        **{f"vip{n}": f"0A60000{n}" for n in (1, 2, 3)},
        **{f"pod{n}": f"0A01000{n}" for n in (2, 9)},
    },
    Family.IPV6: {
        "more": "",
        **{f"vip{n}": f"[fd00:0096:0000:0000:0000:0000:0000:000{n}]" for n in (1, 2, 3)},
        **{f"pod{n}": f"[fd00:0001:0000:0000:0000:0000:0000:000{n}]" for n in (2, 9)},
    },
}


@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES)
def test_a_change_of_others_is_noticed_once_by_the_family_it_concerns(
    kernel, watch, family, before, after
):
    other = next(each for each in Family if each is not family)
    others = ServersWatch(other, kernel.ask, kernel.clock)
    others.reading()
    kernel.now_s += EVERY_S
    kernel.replaces(before.format(**WORDS[family]), after.format(**WORDS[family]))

    assert watch.disturbed(OURS[family])
    assert not others.disturbed(OURS[other])
    kernel.now_s += EVERY_S
    assert not watch.disturbed(OURS[family])


def test_connections_that_come_and_go_are_no_change(kernel, watch, family):
    kernel.replaces("Masq    1      0          0        ", "Masq    1      7          12345678 ")
    assert not watch.disturbed(OURS[family])


def test_it_looks_every_few_seconds_alone(kernel, watch, family):
    assert not watch.disturbed(OURS[family])
    kernel.prints("")
    kernel.now_s += EVERY_S - 0.1
    assert not watch.disturbed(OURS[family])
    kernel.now_s += 0.1
    assert watch.disturbed(OURS[family])


def test_what_we_change_ourselves_is_left_out_until_the_next_look(kernel, watch, family):
    watch.touched([TCP[family]])
    tcp = WORDS[family]["vip1"]
    kernel.replaces(f"TCP  {tcp}:0050 rr", f"TCP  {tcp}:0050 sh")
    assert not watch.disturbed(OURS[family])

    kernel.replaces(f"TCP  {tcp}:0050 sh", f"TCP  {tcp}:0050 rr")
    kernel.now_s += EVERY_S
    assert watch.disturbed(OURS[family])


def test_what_others_change_beside_what_we_change_is_noticed(kernel, watch, family):
    watch.touched([TCP[family]])
    udp = WORDS[family]["vip2"]
    kernel.replaces(f"UDP  {udp}:0035 rr", f"UDP  {udp}:0035 sh")
    assert watch.disturbed(OURS[family])


def test_a_reading_takes_what_it_finds_for_right(kernel, watch, family):
    kernel.prints("")
    watch.reading()
    kernel.now_s += EVERY_S
    assert not watch.disturbed(OURS[family])


def test_servers_of_others_may_change(kernel, watch, family):
    ours = [each for each in OURS[family] if each != TCP[family]]
    kernel.replaces(f"TCP  {WORDS[family]['vip1']}:0050 rr", "TCP  C0000201:0050 sh")
    assert not watch.disturbed(ours)


class TestLeftOut:
    """A server of ours that is there, and not printed, as other namespaces have some."""

    @pytest.fixture
    def tcp(self, family):
        """Return how the first line of one begins, and how it does with another scheduler."""
        vip = WORDS[family]["vip1"]
        return f"TCP  {vip}:0050 rr", f"TCP  {vip}:0050 sh"

    @pytest.fixture
    def leaves_out(self, kernel, family, tcp):
        """Let the kernel leave one out when it prints, and tell a digest of it else."""

        def leaves_out(digest=1):
            before, _, rest = PRINTED.partition(tcp[0])
            _, start, behind = rest.partition("UDP" if family is Family.IPV6 else "TCP")
            kernel.prints(before + start + behind)
            kernel.unprinted = {TCP[family]: digest}

        return leaves_out

    @pytest.fixture
    def prints(self, kernel):
        """Let the kernel print it again, or something else in its place."""

        def prints(*change):
            kernel.prints(PRINTED)
            if change:
                kernel.replaces(*change)
            kernel.unprinted = {}

        return prints

    @pytest.fixture
    def later(self, kernel, watch, family):
        """Return whether it is disturbed when it looks the next time."""

        def later():
            kernel.now_s += EVERY_S
            return watch.disturbed(OURS[family])

        return later

    def test_it_is_not_gone(self, watch, family, leaves_out, prints, later):
        leaves_out()
        assert not later()
        assert watch.sees(TCP[family])
        prints()
        assert not later()

    def test_it_is_not_gone_if_it_is_printed_for_the_first_time_later(
        self, watch, family, leaves_out, prints, later
    ):
        leaves_out()
        watch.reading()
        assert not watch.sees(TCP[family])
        watch.told({TCP[family]: None})
        assert watch.sees(TCP[family])
        assert not later()
        prints()
        assert not later()

    def test_it_is_gone_if_it_is_told_of_no_more(self, kernel, watch, family, leaves_out, later):
        leaves_out()
        kernel.unprinted.clear()
        assert later()
        assert not watch.sees(TCP[family])
        assert not later()

    def test_a_change_between_two_readings_is_noticed(self, watch, family, leaves_out, later):
        watch.told({TCP[family]: 1})
        leaves_out(1)
        assert not later()
        leaves_out(2)
        assert later()
        assert not later()

    def test_a_change_with_which_it_begins_is_noticed_where_another_one_was_left_out(
        self, kernel, watch, family, leaves_out, later
    ):
        other = {b"another": 1}
        watch.told({b"another": None})
        kernel.unprinted = {TCP[family]: 1, **other}
        assert not later()
        leaves_out(2)
        kernel.unprinted |= other
        assert later()

    def test_a_change_with_which_it_ends_is_noticed(
        self, kernel, watch, family, leaves_out, prints, later
    ):
        leaves_out(1)
        watch.reading()
        watch.told(dict.fromkeys(OURS[family], 1))
        prints()
        kernel.unprinted = {TCP[family]: 2}
        assert later()

    def test_a_change_since_it_was_printed_is_noticed_when_it_is_again(
        self, leaves_out, prints, later, tcp
    ):
        leaves_out()
        assert not later()
        prints(*tcp)
        assert later()

    def test_what_we_changed_ourselves_is_no_change(
        self, watch, family, leaves_out, prints, later, tcp
    ):
        watch.told({TCP[family]: 1})
        watch.touched([TCP[family]])
        assert not later()
        leaves_out(2)
        assert not later()

        watch.touched([TCP[family]])
        leaves_out(3)
        assert not later()
        prints(*tcp)
        assert not later()


def test_as_long_as_all_is_printed_nothing_is_asked(kernel, watch, family):
    watch.told(dict.fromkeys(OURS[family], 1))
    for _ in range(3):
        assert not watch.disturbed(OURS[family])
        kernel.now_s += EVERY_S
    assert kernel.asked == 0


def test_a_kernel_that_prints_nothing_any_more_is_a_refusal(kernel, watch, family):
    kernel.prints_no_more()
    with pytest.raises(BackendError, match="ip_vs: No such file"):
        watch.disturbed(OURS[family])
    with pytest.raises(BackendError, match="ip_vs: No such file"):
        watch.reading()

"""Boots Debian's kernel under qemu, in software emulation, with the host's files as its root."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.vm import kernel

# What the data paths and the tests use; each drags in what it needs.
_MODULES = (
    "veth dummy tun bridge br_netfilter vxlan "
    "sch_ingress cls_bpf act_bpf "
    "iptable_nat iptable_filter iptable_raw iptable_mangle "
    "ip6table_nat ip6table_filter ip6table_raw ip6table_mangle "
    "nf_tables nft_compat nft_chain_nat nf_conntrack_netlink "
    "xt_MASQUERADE xt_TCPMSS xt_addrtype xt_bpf xt_comment xt_connlabel xt_conntrack xt_ipvs "
    "xt_mark xt_nat xt_nfacct xt_sctp xt_set xt_statistic xt_tcpudp ipt_REJECT ip6t_REJECT "
    "ip_set_hash_ip ip_set_hash_net ip_set_hash_ipport ip_set_hash_ipportnet ip_set_bitmap_port "
    "ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sh ip_vs_mh ip_vs_dh ip_vs_sed ip_vs_nq "
    "ip_vs_ovf ip_vs_fo ip_vs_lblc ip_vs_lblcr udp_diag tcp_diag"
)
# No mitigation protects anything here, and each of these makes the emulation faster.
_KERNEL_OPTIONS = (
    "loglevel=5",
    "mitigations=off",
    "nokaslr",
    "init_on_alloc=0",
    "apparmor=0",
    "audit=0",
    "tsc=reliable",
    "rcupdate.rcu_expedited=1",
)
_PASSED_ON = ("XDG_CACHE_HOME", "KUBEBUILDER_ASSETS", "CI")
_DEVICE = "virtio-9p-pci,fsdev=host,mount_tag=host"
_FILES = "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"


class Machine:
    """A machine that runs one command and is off then.

    Files of the host are as they are, and what the command writes is gone with the machine, save
    in `share`, which it sees as `SHARE`.
    """

    SHARE = Path("/run/kproxy")

    def __init__(
        self, command: Sequence[str], *, share: Path, cwd: Path, environment: Mapping[str, str]
    ) -> None:
        self.console = share / "console"
        self.output = share / "output"
        self._booted = share / "booted"
        self._status = share / "status"
        share.mkdir(exist_ok=True)
        self.output.touch()
        (share / "modules").write_text(_MODULES)
        (share / "command").write_text(_script(command, cwd, environment))
        # By a pipe: each of qemu's ways to this output would empty a file, and begin at its start.
        with self.console.open("wb") as console:
            self._console = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=console)
        self._process = subprocess.Popen(
            _virtme_run(share),
            stdin=subprocess.DEVNULL,
            stdout=self._console.stdin,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(share)},
            start_new_session=True,
        )
        assert self._console.stdin is not None
        self._console.stdin.close()

    def is_running(self) -> bool:
        """Say whether it is not off yet."""
        return self._process.poll() is None

    def has_booted(self) -> bool:
        """Say whether it has come so far that the command runs."""
        return self._booted.exists()

    def status(self) -> int | None:
        """Return the command's exit code, None if it did not come to its end."""
        told = self._status.read_text() if self._status.exists() else ""
        return int(told) if told else None

    def off(self) -> None:
        """Turn it off at once, if it is not."""
        if self.is_running():
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._console.wait()


def _script(command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> str:
    told = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
    wanted = {"HOME": str(Path.home()), "PATH": os.environ["PATH"], **told, **environment}
    exports = [f"export {key}={shlex.quote(value)}" for key, value in wanted.items()]
    lines = [*exports, f"cd {shlex.quote(str(cwd))}", f"exec {shlex.join(command)}"]
    return "\n".join(lines) + "\n"


def _virtme_run(share: Path) -> list[str]:
    inside = Path(__file__).with_name("inside.sh")
    options = [f"--kopt={option}" for option in _KERNEL_OPTIONS]
    return [
        str(Path(sys.executable).with_name("virtme-run")),
        f"--kimg={kernel.find()}",
        "--mods=auto",
        "--disable-kvm",
        "--force-9p",
        "--memory=3G",
        "--cpus=2",
        *options,
        "--show-boot-console",
        f"--rwdir={Machine.SHARE}={share}",
        f"--script-sh=bash {shlex.quote(str(inside))}",
        *("--qemu-opts", "-fsdev", _FILES, "-device", _DEVICE),
    ]

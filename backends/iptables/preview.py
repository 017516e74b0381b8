"""What would be programmed for a table, as text for a person. Pure."""

from __future__ import annotations

from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import ACCOUNTS, TABLES, Options, account_name
from backends.kernel import sysctl
from backends.kernel.ipset import MAX_CLIENTS
from backends.kernel.xtables.restore import RestoreInput, whole_edit
from backends.kernel.xtables.wording import split_key
from kproxy.core.image import Changes
from kproxy.core.table import ForwardingTable


def preview(table: ForwardingTable, options: Options) -> str:
    """Return the input of iptables-restore --noflush for an empty kernel.

    What the rules need besides stands in comments, as commands: ipsets and counters before them,
    and the node's settings after them, because route_localnet needs its guard.
    """
    renderer = Renderer(table.family, options)
    image = renderer.update(table.everything())
    wanted = Changes({key: value for key, value in image.items() if value is not None}, frozenset())
    lines = []
    for key in sorted(wanted.put):
        if split_key(key)[0] == "set":
            made = renderer.affinity_set(key)
            inet = "inet" if made.family.bits == 32 else "inet6"
            lines.append(
                f"# ipset create {made.name} hash:ip family {inet} timeout {made.timeout_s} "
                f"maxelem {MAX_CLIENTS} forceadd"
            )
    if renderer.counts:
        names = (account_name(table.family, each) for each in ACCOUNTS[table.family])
        lines += [f"# nfacct add {name}" for name in names]
    for name in TABLES:
        edit = whole_edit(name, wanted)
        first = dict.fromkeys(edit.insert_jumps, 1)
        lines += RestoreInput(edit, renderer.chain, renderer.jump, old_jumps={}, numbers=first)
    settings = [sysctl.forwarding_name(table.family)]
    if renderer.localhost:
        settings.append(sysctl.localnet_name())
    lines += [f"# sysctl -w {setting}=1" for setting in settings]
    return "".join(f"{line}\n" for line in lines)

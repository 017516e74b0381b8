"""What would be programmed for a table, as text for a person. Pure."""

from __future__ import annotations

from backends.iptables.render import Renderer
from backends.iptables.restore import text, whole_edit
from backends.iptables.rules import TABLES, Options, split_key
from kproxy.core.image import Changes
from kproxy.core.table import ForwardingTable


def preview(table: ForwardingTable, options: Options) -> str:
    """Return the input of iptables-restore --noflush for an empty kernel.

    The ipsets that the rules refer to come first, as comments that hold ipset commands.
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
                f"# ipset create {made.name} hash:ip family {inet} timeout {made.timeout_s}\n"
            )
    for name in TABLES:
        edit = whole_edit(name, wanted)
        rules = text(edit, chain=renderer.chain, jump=renderer.jump, old_jumps={})
        lines.append(rules.decode())
    return "".join(lines)

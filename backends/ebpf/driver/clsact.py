"""Programs attached as filters of clsact: for kernels without tcx, and behind others' filters.

Our filters are known by their name. They run after whatever tcx holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from backends.ebpf.driver.sides import Place, Side
from backends.kernel import traffic_control
from backends.kernel.bpf.programs import Program
from backends.kernel.traffic_control import LAST_PRIORITY, Filter, Parent
from kproxy.ports.data_path import BackendError

PARENTS = {Side.INGRESS: Parent.INGRESS, Side.EGRESS: Parent.EGRESS}

_BPF = "bpf"
_NAME = "kproxy"
_HANDLES = (0x6B700041, 0x6B700042)  # a filter that moves is there twice for a moment
_TRIES = 16  # priorities, where others have the best one for filters of another kind


class ClsactFilters:
    """Our filters. Any call may raise BackendError.

    `notes` is a folder that remembers, in folders of its own, which qdiscs are ours.
    """

    def __init__(self, notes: Path) -> None:
        self._notes = notes

    def put(self, device: int, side: Side, program: Program, *, move: bool) -> None:
        """Attach a program, or replace an earlier one in one step.

        `move`: it goes where a new one would go.
        """
        self._add_qdisc(device)
        found = traffic_control.filters(device, PARENTS[side])
        ours = [each for each in found if _is_ours(each)]
        if not ours or move:
            taken = {each.handle for each in ours}
            handle = next(each for each in _HANDLES if each not in taken)
            self._insert(device, side, handle, program)
        else:
            kept = ours.pop(0)
            if kept.program != program.number:
                traffic_control.put_filter(device, PARENTS[side], kept, program, replace=True)
        for each in ours:
            traffic_control.remove_filter(device, PARENTS[side], each)

    def place(self, device: int, side: Side) -> Place:
        """Say how our program stands to those of others."""
        found = traffic_control.filters(device, PARENTS[side])
        ours = [_is_ours(each) for each in found]
        if not any(ours):
            return Place.MISSING
        return Place.RIGHT if ours[0 if side is Side.INGRESS else -1] else Place.OVERTAKEN

    def beside_others(self, device: int, side: Side) -> bool:
        """Say whether filters of others are there too."""
        found = traffic_control.filters(device, PARENTS[side])
        return not all(map(_is_ours, found))

    def take_off(self, device: int, side: Side) -> int:
        """Detach our program; return how many filters that were."""
        found = traffic_control.filters(device, PARENTS[side])
        ours = [each for each in found if _is_ours(each)]
        return sum(traffic_control.remove_filter(device, PARENTS[side], each) for each in ours)

    def remove_qdisc(self, device: int) -> bool:
        """Remove the qdisc if it is ours and nobody uses it; say whether it went."""
        if not self._note(device).exists():
            return False
        if any(traffic_control.filters(device, parent) for parent in Parent):
            return False
        removed = traffic_control.remove_clsact(device)
        self.forget(device)
        return removed

    def forget(self, device: int) -> None:
        """Forget whose the qdisc was: the device is gone."""
        with suppress(FileNotFoundError):
            self._note(device).rmdir()

    def noted(self) -> Iterator[int]:
        """Yield the devices whose qdisc is ours, gone ones too."""
        with suppress(FileNotFoundError):
            yield from [int(path.name) for path in self._notes.iterdir()]

    def _add_qdisc(self, device: int) -> None:
        note = self._note(device)
        fresh = not note.exists()
        note.mkdir(parents=True, exist_ok=True)  # first: a qdisc without it would stay for ever
        if not traffic_control.add_clsact(device) and fresh:
            self.forget(device)

    def _insert(self, device: int, side: Side, handle: int, program: Program) -> None:
        best = range(1, 1 + _TRIES)
        if side is Side.EGRESS:
            best = range(LAST_PRIORITY, LAST_PRIORITY - _TRIES, -1)
        for priority in best:
            wanted = Filter(priority, handle, _BPF, _NAME, program.number)
            if traffic_control.put_filter(device, PARENTS[side], wanted, program, replace=False):
                return
        doing = f"adding a filter at the {side.value} of the device number {device}"
        detail = "others have the priorities, or a qdisc that knows no egress"
        raise BackendError(doing, detail, transient=False)

    def _note(self, device: int) -> Path:
        return self._notes / str(device)


def _is_ours(found: Filter) -> bool:
    return found.kind == _BPF and found.name.startswith(_NAME)

"""What a person sees: two tables that move on a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from examples.demo.board import Board, Step, Tally, quantile_ms
from examples.demo.plan import OUTSIDE, OUTSIDE_ADDRESSES, Caller, Expected, Pod
from examples.demo.rollout import DRAINING, GONE, READY, STARTING, Event

_FRAMES_PER_S = 5
_PLAIN_WIDTH = 110
_BAR_WIDTH = 16
_BAR_IS_PER_S = 6.0
_STYLES = {READY: "green", DRAINING: "yellow", GONE: "dim", STARTING: "cyan", "": "dim"}
_SAID = {
    STARTING: "has been made, not ready yet",
    READY: "is ready: traffic may come",
    DRAINING: "is terminating: no new connections",
    GONE: "has ended",
}


class Screen:
    """Shows the board, live on a terminal. A context manager; the last picture stays."""

    def __init__(self, board: Board, pods: dict[str, Pod], title: str) -> None:
        self._board = board
        self._pods = pods
        self._title = title
        self._console = Console()
        if not self._console.is_terminal:
            self._console = Console(width=_PLAIN_WIDTH)
        self._began_s = time.monotonic()
        self._live: Live | None = None
        self._told: set[int] = set()

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.update(self._picture(), refresh=True)
            self._live.__exit__(kind, error, trace)
        else:
            self._console.print(self._picture())

    @property
    def frame_s(self) -> float:
        """How long one picture stays."""
        return 1 / _FRAMES_PER_S

    def begin(self) -> None:
        """The traffic begins now."""
        self._began_s = time.monotonic()
        self._say(self._title)

    def refresh(self) -> None:
        """Show what the board knows now."""
        if self._live is not None:
            self._live.update(self._picture(), refresh=True)
        for number, step in enumerate(self._board.steps):
            if number not in self._told and not step.leaving and step.followed_s is not None:
                self._told.add(number)
                self._say(f"{step.pod}: first request {1000 * step.followed_s:.0f} ms later")

    def happened(self, event: Event) -> None:
        """Tell of a step of the rollout."""
        self._say(f"{event.pod.name} {_SAID[event.state]}")

    def _say(self, what: str) -> None:
        if self._live is None:
            at_s = time.monotonic() - self._began_s
            self._console.print(f"{at_s:5.1f} s  {what}  ({self._board.sent} requests)", style=None)

    def _picture(self) -> RenderableType:
        seconds = time.monotonic() - self._began_s
        head = Text.assemble((self._title, "bold"), (f"   {seconds:.0f} s", "dim"))
        return Group(head, "", self._requests(), "", self._rollout())

    def _requests(self) -> Table:
        table = _table()
        for name, width in (("who asks", 16), ("service", 15), ("through", 12)):
            table.add_column(name, min_width=width, no_wrap=True)
        for name in ("sent", "failed", "p50 ms", "p99 ms"):
            table.add_column(name, justify="right", min_width=len(name), no_wrap=True)
        table.add_column("pod sees", min_width=len("pod sees"), no_wrap=True)
        table.add_column("went to", overflow="ellipsis", no_wrap=True, ratio=1)
        for caller, tally in zip(self._board.callers, self._board.tallies, strict=True):
            table.add_row(
                caller.title,
                caller.service,
                caller.via,
                str(tally.good + tally.failed),
                Text(str(tally.failed), "bold red" if tally.failed else "green"),
                *_quantiles(tally),
                self._whom_the_pod_saw(caller, tally),
                _went_to(caller, tally),
            )
        return table

    def _whom_the_pod_saw(self, caller: Caller, tally: Tally) -> str:
        if not tally.seen:
            return "-"
        own = {caller.source, *OUTSIDE_ADDRESSES} if caller.machine == OUTSIDE else set()
        if caller.machine in self._pods:
            own = set(self._pods[caller.machine].addresses)
        return "client" if tally.seen in own else "node"

    def _rollout(self) -> Table:
        table = _table()
        for name, width in (("rollout of web", 16), ("on", 6), ("state", 8)):
            table.add_column(name, min_width=width, no_wrap=True)
        table.add_column("requests/s", min_width=_BAR_WIDTH + 4, no_wrap=True)
        table.add_column("after the manifest changed", no_wrap=True, ratio=1)
        now_s = time.monotonic()
        for name, state in self._board.states.items():
            style = _STYLES[state]
            table.add_row(
                Text(name, style),
                self._pods[name].node,
                Text(state or "-", style),
                _bar(self._board.per_second(name, now_s), style),
                _followed([step for step in self._board.steps if step.pod == name]),
            )
        return table

    def finish(self, agent_said: str) -> None:
        """Print the summary, and what went wrong if anything did."""
        for line in summary(self._board):
            self._console.print(line)
        for sample in self._board.failures[:5]:
            caller = self._board.callers[sample.caller]
            self._console.print(
                f"  failed: {caller.title} -> {caller.service}, {caller.via}: "
                f"{sample.outcome.value} after {1000 * sample.took_s:.0f} ms "
                f"{sample.pod} {sample.seen}",
                style="red",
            )
        if self._board.failed and agent_said:
            self._console.print(agent_said, style="dim", markup=False)

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show that something is being prepared, and how long it took."""
        began_s = time.monotonic()
        with self._console.status(what) if self._console.is_terminal else contextlib.nullcontext():
            yield
        self._console.print(f"{what}: {time.monotonic() - began_s:.1f} s", style="dim")


def _table() -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False, expand=True)


def summary(board: Board) -> Iterator[Text]:
    """Return the last lines."""
    answered = [
        seconds
        for caller, tally in zip(board.callers, board.tallies, strict=True)
        if caller.expected is Expected.ANSWER
        for seconds in tally.took_s
    ]
    style = "bold red" if board.failed else "bold green"
    line = Text.assemble(f"\n{board.sent} requests, ", (f"{board.failed} failed", style))
    if answered:
        p50, p99 = quantile_ms(answered, 0.5), quantile_ms(answered, 0.99)
        line.append(f"; connect to answer p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    yield line
    followed = [s.followed_s for s in board.steps if not s.leaving and s.followed_s is not None]
    if followed:
        worst = 1000 * max(followed)
        median = quantile_ms(followed, 0.5)
        yield Text(f"manifest saved to first packet: median {median:.0f} ms, worst {worst:.0f} ms")


def _quantiles(tally: Tally) -> tuple[str, str]:
    if not tally.took_s:
        return "-", "-"
    return (
        f"{quantile_ms(tally.took_s, 0.5):.1f}",
        f"{quantile_ms(tally.took_s, 0.99):.1f}",
    )


def _went_to(caller: Caller, tally: Tally) -> Text:
    if caller.expected is Expected.REFUSAL:
        return Text("refused at once, as it should be", "dim")
    if caller.expected is Expected.SILENCE:
        return Text("dropped, as it should be", "dim")
    shares: Counter[str] = tally.pods
    if len(shares) > 3 or caller.service == "web":
        shares = Counter()
        for pod, count in tally.pods.items():
            shares[pod.rpartition("-")[0] + "-*"] += count
    total = sum(shares.values()) or 1
    parts = [f"{pod} {100 * count / total:.0f}%" for pod, count in sorted(shares.items())]
    return Text(" · ".join(parts))


def _bar(per_second: float, style: str) -> Text:
    length = min(_BAR_WIDTH, round(per_second / _BAR_IS_PER_S))
    count = f" {per_second:.0f}" if per_second else ""
    return Text("█" * length, style).append(count, "default")


def _followed(steps: list[Step]) -> str:
    parts = []
    for step in steps:
        word = "last request" if step.leaving else "first request"
        if step.followed_s is not None:
            parts.append(f"{word} {1000 * step.followed_s:.0f} ms")
        elif step.leaving:
            parts.append("no request any more")
    return ", ".join(parts)

"""How far a run is, and how long it will still take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar


class Progress(Protocol):
    """What a run tells of itself."""

    title: str

    def begin(self, visits: int, rounds: int) -> None:
        """A part begins: so many visits a round."""

    def made(self, took_s: float, *, left: int) -> None:
        """A visit was made; of so many there will be more."""

    def say(self, text: str) -> None:
        """Something is worth a line."""


class Estimate:
    """Seconds that are left of a run of so many parts, by their names in their order.

    One to come is guessed to take as long as the last of its name, or as the mean of all so far;
    the present one by its visits so far.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        self._parts = parts
        self._spent_s: list[float] = []
        self._visits = self._made = 0

    def begin(self, visits: int, rounds: int) -> None:
        """Count the visits of the next part."""
        self._spent_s.append(0.0)
        self._visits, self._made = visits * rounds, 0

    def made(self, took_s: float) -> None:
        """Count a visit."""
        self._spent_s[-1] += took_s
        self._made += 1

    @property
    def done(self) -> float:
        """Return the share of the parts that are over."""
        return (len(self._spent_s) - 1 + self._share) / len(self._parts) if self._spent_s else 0.0

    @property
    def left_s(self) -> float:
        """Return how many seconds it will still take."""
        if not self._spent_s or not self._share:
            return 0.0
        whole_s = [*self._spent_s[:-1], self._spent_s[-1] / self._share]
        mean_s = sum(whole_s) / len(whole_s)
        last_s = dict(zip(self._parts, whole_s, strict=False))
        to_come = self._parts[len(whole_s) :]
        return whole_s[-1] - self._spent_s[-1] + sum(last_s.get(each, mean_s) for each in to_come)

    @property
    def _share(self) -> float:
        return min(1.0, self._made / self._visits) if self._visits else 1.0


class Display:
    """A bar on a terminal; lines where there is none. A context manager."""

    def __init__(self, parts: Sequence[str], console: Console) -> None:
        self.title = ""
        self._estimate = Estimate(parts)
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
        self._bar = Bar(*columns, console=console)
        self._task = self._bar.add_task("", total=1.0, left="")

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, visits: int, rounds: int) -> None:
        """Show the title of a part."""
        self._estimate.begin(visits, rounds)
        if not self._console.is_terminal:
            self.say(f"{self.title}: {visits} visits in each of {rounds} rounds")
        self._show()

    def made(self, took_s: float, *, left: int) -> None:
        """Move the bar."""
        self._estimate.made(took_s)
        self._show()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)

    def _show(self) -> None:
        minutes, seconds = divmod(int(self._estimate.left_s), 60)
        left = f"{minutes}:{seconds:02} left"
        self._bar.update(
            self._task, description=self.title, completed=self._estimate.done, left=left
        )

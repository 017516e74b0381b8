"""Where in a built-in chain a jump belongs. Pure.

Engines of network policies let their jump stand first, and some put it back there. What stands
before it and accepts packets opens what they close; what stands behind a rule that ends the chain
meets no packets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backends.kernel.xtables.steps import Action, RuleStep

Steps = Callable[[str], Sequence[RuleStep]]
"""The rules of a chain that others may jump to."""

_JUMPS = (Action.JUMP, Action.GOTO)


def leading(rules: Sequence[RuleStep], steps: Steps, skipped: Callable[[str], bool]) -> int:
    """Return how many rules of a built-in chain a jump has to stand behind.

    Those are its first jumps to other chains, up to the last that may close something; without
    such a one, up to the first that may only open something. A rule that decides on its own ends
    them, unless it closes what a jump under the same condition let come back, as Weave's does;
    so does a jump from which no packet comes back. Jumps to `skipped` chains count for nothing.
    What decides only about connections that are open already ends nothing.
    """
    effects = _Effects(steps)
    behind = 0
    opened = False
    passed: set[bytes] = set()
    for number, rule in enumerate(rules, start=1):
        if rule.action is Action.PASS or (rule.chain and skipped(rule.chain)):
            continue
        if rule.ongoing and rule.action not in _JUMPS:
            opened = True  # for what is open already: the rest meets the next rule
        elif rule.action in _JUMPS:
            if not rule.condition and (rule.action is Action.GOTO or effects.ends(rule.chain)):
                break
            passed.add(rule.condition)
            opens = effects.opens(rule.chain) and not rule.marked
            if effects.closes(rule.chain) or not (opens or opened):
                behind = number
            opened = opened or opens
        elif rule.action is Action.DENY and rule.condition in passed and rule.condition:
            behind = number
        else:
            break
    return behind


class _Effects:
    """What chains may do with a packet, with all that they lead to."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._reached: dict[str, frozenset[str]] = {}

    def closes(self, chain: str) -> bool:
        """Say whether a packet may be dropped or refused."""
        return any(
            step.action in (Action.DENY, Action.ANY)
            for each in self._within(chain)
            for step in self._steps(each)
        )

    def opens(self, chain: str) -> bool:
        """Say whether a packet may be accepted whose mark does not tell that it was judged."""
        return any(
            step.action in (Action.ACCEPT, Action.ANY) and not step.marked
            for each in self._within(chain)
            for step in self._steps(each)
        )

    def ends(self, chain: str, depth: int = 0) -> bool:
        """Say whether no packet comes back."""
        if depth > _DEEPEST:
            return False
        for step in self._steps(chain):
            always = not step.condition
            if step.action in (Action.RETURN, Action.GOTO, Action.ANY):
                return False
            if always and step.action in (Action.ACCEPT, Action.DENY):
                return True
            if always and step.action is Action.JUMP and self.ends(step.chain, depth + 1):
                return True
        return False

    def _within(self, chain: str) -> frozenset[str]:
        """Return a chain and all that can be reached from it."""
        if chain not in self._reached:
            found: set[str] = set()
            waiting = [chain]
            while waiting:
                name = waiting.pop()
                if name not in found:
                    found.add(name)
                    waiting += [step.chain for step in self._steps(name) if step.chain]
            self._reached[chain] = frozenset(found)
        return self._reached[chain]


_DEEPEST = 16  # levels of chains: the kernel refuses more

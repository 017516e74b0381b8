"""How often the loop may write, and how often it looks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """The times of the loop.

    - `min_interval_s`: from the end of one write of changes to the start of the next, for each
      family, even if the kernel had them all. None: as long as what the write cost makes
      worthwhile, see `Pace.wrote`.
    - `sync_period_s`: after how long an idle family is read in full (later where reading takes
      more than 2 % of that), and the longest pause after a refusal if that is less than 30 s.
    - `drift_poll_s`: how often the backend is asked whether somebody else wrote.
    - `look_spacing_s`: from the start of one full read to the next that a foreign write causes, so
      that a neighbour that never stops writing does not make us read without end. With the poll
      it decides how soon drift is repaired: within 5 s. Where reading takes long and finds nothing
      time and again, the spacing grows, up to 10 s.
    - `stuck_after_s`: a call into the kernel that takes this long is reported.
    """

    min_interval_s: float | None
    sync_period_s: float
    drift_poll_s: float = 1.0
    look_spacing_s: float = 3.5
    stuck_after_s: float = 60.0

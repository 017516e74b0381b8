"""Pauses between attempts."""

from kproxy.watch.api.times import Absence, Backoff, Times

TIMES = Times()


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def backoff(clock, chance):
    return Backoff(
        TIMES.backoff_first_s,
        TIMES.backoff_most_s,
        clock=clock,
        chance=lambda: chance,
        reset_s=TIMES.backoff_reset_s,
    )


def pauses(attempts, count):
    return [attempts.next_s() for _ in range(count)]


def test_pauses_double_up_to_half_a_minute():
    attempts = backoff(Clock(), 0.0)

    assert pauses(attempts, 8) == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


def test_chance_stretches_a_pause_up_to_twofold():
    attempts = backoff(Clock(), 1.0)

    assert pauses(attempts, 8) == [1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]


def test_after_two_good_minutes_pauses_begin_anew():
    clock = Clock()
    attempts = backoff(clock, 0.0)
    pauses(attempts, 5)

    clock.now += 120.0
    assert attempts.next_s() == 25.6, "not yet"
    clock.now += 120.1
    assert attempts.next_s() == 0.8


def test_an_absence_is_certain_after_a_minute_of_it():
    clock = Clock()
    absence = Absence(TIMES, clock=clock, chance=lambda: 0.0)

    assert not absence.is_certain()
    clock.now += 59.0
    assert not absence.is_certain()
    clock.now += 1.0
    assert absence.is_certain()
    absence.seen()
    assert not absence.is_certain()


def test_what_is_missing_is_asked_for_ever_more_rarely():
    clock = Clock()
    absence = Absence(TIMES, clock=clock, chance=lambda: 0.0)
    seen = []
    for _ in range(6):
        seen.append(absence.next_s())
        clock.now += seen[-1]

    assert seen == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]
    absence.seen()
    assert absence.next_s() == 30.0

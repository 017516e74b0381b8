"""Who owns a frontend that several service ports claim."""

from __future__ import annotations

import random

import pytest

from kproxy.core.claims import Claims
from kproxy.core.objects import Protocol
from kproxy.core.table import Frontend, NodePort, ServicePortKey, Via, Vip

SHARED = Vip(Via.EXTERNAL_IP, "203.0.113.1", 80)


def key_of(number: int) -> ServicePortKey:
    return ServicePortKey("default", f"service-{number:05}", "", Protocol.TCP)


def test_whoever_loses_or_gains_a_frontend_is_named():
    claims = Claims()
    first, second, third = key_of(1), key_of(2), key_of(3)

    assert claims.replace(second, (), (SHARED,)) == {second}
    assert claims.replace(third, (), (SHARED,)) == {second, third}
    assert claims.replace(first, (), (SHARED,)) == {first, second}, "the owner until now loses it"
    assert claims.replace(first, (SHARED,), ()) == {first, second}, "and has it again"


def test_one_more_of_many_claimants_touches_none_of_the_others():
    claims = Claims()
    for number in range(100):
        claims.replace(key_of(number), (), (SHARED,))

    assert claims.replace(key_of(100), (), (SHARED,)) == {key_of(0), key_of(100)}
    assert claims.replace(key_of(50), (SHARED,), ()) == {key_of(0), key_of(50)}


@pytest.mark.parametrize("seed", range(20))
def test_touched_service_ports_cover_every_change_of_ownership(seed):
    """However claims come and go, who is not named owns what it owned before."""
    chance = random.Random(seed)
    frontends: list[Frontend] = [
        SHARED,
        Vip(Via.CLUSTER_IP, "203.0.113.1", 80),
        Vip(Via.LOAD_BALANCER, "203.0.113.1", 80),
        Vip(Via.EXTERNAL_IP, "203.0.113.2", 80),
        NodePort(30080),
    ]
    claims = Claims()
    claimed: dict[ServicePortKey, tuple[Frontend, ...]] = {key_of(n): () for n in range(6)}
    for _ in range(60):
        key = key_of(chance.randrange(6))
        before = {each: claims.owned(each, claimed[each]) for each in claimed}
        new = tuple(chance.sample(frontends, chance.randrange(len(frontends) + 1)))
        touched = claims.replace(key, claimed[key], new)
        claimed[key] = new

        after = {each: claims.owned(each, claimed[each]) for each in claimed}
        assert {each for each in claimed if before[each] != after[each]} <= touched

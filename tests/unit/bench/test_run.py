"""The options of `python -m bench run`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.comparison import FEWEST_ROUNDS
from bench.load.quantiles import quantiles
from bench.parameters import PRESETS
from bench.parts import PARTS
from bench.peers import KPROXY, PEERS
from bench.traffic import WAYS


def refused(*arguments):
    result = CliRunner().invoke(main, ["run", *arguments])
    assert result.exit_code == 2, result.output
    return result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--parts", "packet"), "packets, connections"),
        (("--peers", "routing,cilium"), "'cilium' is none of routing"),
        (("--data-paths", "nft"), "iptables-legacy, iptables-nft"),
        (("--sizes", "10"), "is not like 100x10,1000x10"),
        (("--sizes", "0x10"), "1 to 10,000 Services"),
        (("--families", "IPv5"), "'IPv5' is none of IPv4, IPv6"),
        (("--flows", "0"), "--flows"),
        (("--packet-size", "32"), "--packet-size"),
        (("--requests", "60000"), "60000 is not in the range"),
    ],
)
def test_what_cannot_be_is_refused_and_told_what_can(arguments, said):
    assert said in " ".join(refused(*arguments).split())


def test_help_names_everything_that_can_be_chosen():
    said = CliRunner().invoke(main, ["run", "--help"]).output
    words = said.replace("[", " ").replace("]", " ").replace("|", " ").split()
    for name in (*PARTS, *WAYS, *PRESETS, "routing", "straight"):
        assert name in words, name


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_full_run_has_enough_rounds_to_be_compared(part):
    assert part.repeats(PRESETS["full"]) >= FEWEST_ROUNDS


def test_presets_name_what_there_is():
    for preset in PRESETS.values():
        assert set(preset.peers) <= set(PEERS)
        assert set(preset.data_paths) <= set(KPROXY)
        assert set(preset.paths) == set(WAYS)


def test_quantiles_are_values_that_were_measured():
    found = dict(quantiles([float(n) for n in range(2000, 0, -1)]))
    assert (found[0.0], found[0.5], found[0.99], found[0.999], found[1.0]) == (
        1.0,
        1001.0,
        1981.0,
        1999.0,
        2000.0,
    )


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (1, [0.0, 0.5, 1.0]),
        (2, [0.0, 0.5, 1.0]),
        (6, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (7, [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]),
        (69, [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0]),
        (70, [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0]),
        (700, [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0]),
    ],
)
def test_few_values_tell_no_extreme_quantile(count, told):
    assert [share for share, _ in quantiles([1.0] * count)] == told

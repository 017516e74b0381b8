"""The page of a run, as a browser draws it: in light, in dark, and on paper."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from bench.report.page import page
from tests.support.bench import results

WIDTH, HEIGHT = 1100, 2_400
WITHIN_S = 90
DARK = "--blink-settings=preferredColorScheme=0"
SEEN = (
    "iptables-legacy",
    "iptables-nft",
    "nftables",
    "ebpf",
    "other",
)  # the hues of those measured
FEWEST_PIXELS = 40  # of a hue: some markers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    run = results(seed=1, rounds=5)
    drawn = [each for each in run.samples if each.measure in ("packets", "new connections")]
    return written(tmp_path_factory, type(run)(run.run, tuple(drawn), (), run.limits, run.end))


def written(folders, run):
    """Write the page of a run into a folder of its own; return that."""
    folder = folders.mktemp("page")
    (folder / "page.html").write_text(page(run))
    return folder


@pytest.fixture(scope="module")
def colours(folder):
    """The colours by their names, in light and in dark."""
    html = (folder / "page.html").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", each)) for each in (light, dark)]


def browser(folder, *options):
    program = shutil.which("chromium")
    assert program, "`make setup` installs it"
    subprocess.run(
        [
            *(program, "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
            "--no-sandbox",  # root has none, and the page is our own
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={WIDTH},{HEIGHT}",
            *options,
            (folder / "page.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=WITHIN_S,
    )


def pixels(image):
    return np.asarray(Image.open(image).convert("RGB")).astype(int)


def count(drawn, colour):
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return int((np.abs(drawn - wanted).max(axis=2) <= 8).sum())


def assert_shown(drawn, colours, others):
    """The paper, the text and each hue are those of one scheme, and not those of the other."""
    assert count(drawn, colours["paper"]) > 0.7 * drawn.shape[0] * drawn.shape[1]
    assert count(drawn, colours["ink"]) > 1_000
    for name in SEEN:
        assert count(drawn, colours[name]) >= FEWEST_PIXELS, name
    assert count(drawn, others["paper"]) < 0.02 * drawn.shape[0] * drawn.shape[1]
    for name in ("iptables-nft", "nftables", "ebpf"):
        assert count(drawn, others[name]) < FEWEST_PIXELS, name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_plots_are_there_on_a_screen(folder, colours, scheme):
    picture = folder / f"{scheme}.png"
    browser(folder, f"--screenshot={picture}", *([DARK] if scheme == "dark" else []))

    light, dark = colours
    assert_shown(pixels(picture), *((light, dark) if scheme == "light" else (dark, light)))


def test_distributions_are_there_too(tmp_path_factory, colours):
    run = results(seed=1, rounds=5)
    alone = written(tmp_path_factory, type(run)(run.run, (), run.distributions, (), run.end))
    assert alone.joinpath("page.html").read_text().count("-quantiles") > 0
    picture = alone / "light.png"
    browser(alone, f"--screenshot={picture}")

    assert_shown(pixels(picture), *colours)


def test_the_plots_are_there_on_paper_in_light_and_with_all_numbers(folder, colours):
    paper = folder / "page.pdf"
    browser(folder, DARK, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    subprocess.run(["pdftoppm", "-r", "70", "-png", paper, folder / "paper"], check=True)
    text = subprocess.run(["pdftotext", "-layout", paper, "-"], check=True, capture_output=True)

    sheets = [pixels(each) for each in sorted(folder.glob("paper-*.png"))]
    light, dark = colours
    assert_shown(np.concatenate(sheets), light, dark)
    assert b"smallest, largest" in text.stdout, "on paper nothing is folded away"

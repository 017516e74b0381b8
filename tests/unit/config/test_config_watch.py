"""A configuration file that changes while kproxy runs."""

import asyncio
import logging
import os

import pytest
import yaml

from kproxy.config.fields import Mode
from kproxy.config.watch import changed_configuration
from tests.support.config.samples import HEADER


def text(**fields):
    return yaml.safe_dump({**HEADER, **fields})


class Story:
    """Steps that happen one after the other, one for each pause of the one who watches."""

    def __init__(self, path, *steps):
        self.path = path
        self.steps = list(steps)
        self.useless = set()  # the modes in which nothing could start
        self.slept = 0

    async def sleep(self, seconds):
        assert seconds == 5.0
        if not self.steps:
            raise asyncio.CancelledError
        step = self.steps.pop(0)
        self.slept += 1
        if callable(step):
            step()
        else:
            self.path.write_text(step)

    def usable(self, configuration):
        return f"no {configuration.mode.value} here" if configuration.mode in self.useless else ""

    def watch(self):
        """Return the differences, or None if nothing came of all steps."""
        content = self.path.read_bytes()

        async def wait():
            return await changed_configuration(
                self.path, content, sleep=self.sleep, usable=self.usable
            )

        try:
            return asyncio.run(wait())
        except asyncio.CancelledError:
            return None


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.conf"
    path.write_text(text(mode="iptables"))
    return path


def test_another_value_is_noticed_and_named(file):
    story = Story(file, text(mode="iptables", oomScoreAdj=1, iptables={"syncPeriod": "1m"}))
    assert story.watch() == ("iptables.syncPeriod", "oomScoreAdj")


@pytest.mark.parametrize(
    "same",
    [
        "# a comment\n" + text(mode="iptables") + "\n\n",
        text(mode=""),
        text(mode="iptables", iptables={"syncPeriod": "30000ms"}, nodePortAddresses=[]),
        text(clientConnection={"qps": 50}),
        text(bogus=1),
    ],
)
def test_what_means_the_same_ends_nothing(file, same):
    assert Story(file, same, same).watch() is None


def test_a_file_changed_before_the_first_look_is_noticed(file):
    content = file.read_bytes()
    file.write_text(text(mode="ipvs"))
    assert asyncio.run(changed_configuration(file, content, usable=lambda it: "")) == ("mode",)


def test_saying_the_default_of_taking_over_is_a_change_because_it_has_two(file):
    assert Story(file, text(kproxy={"takeOver": False})).watch() == ("kproxy.takeOver",)


def test_an_invalid_file_is_said_once_and_a_good_one_after_it_counts(file, caplog):
    bad = text(mode="userspace", oomScoreAdj=5000)
    story = Story(file, bad, bad, lambda: None, text(mode="ipvs"))
    assert story.watch() == ("mode",)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3
    mode, oom, kept = (record.getMessage() for record in caplog.records)
    assert "mode: must be one of" in mode
    assert "oomScoreAdj: must be in" in oom
    assert kept.endswith("is not valid; what was read before stays in force")


def test_a_mode_that_could_not_start_ends_nothing(file, caplog):
    story = Story(file, text(mode="ebpf"), text(mode="ebpf", oomScoreAdj=1), text(mode="nftables"))
    story.useless = {Mode.EBPF}
    assert story.watch() == ("mode", "nodePortAddresses")
    assert [record.getMessage() for record in caplog.records] == [
        f"{file}: no ebpf here; what was read before stays in force"
    ] * 2


def test_the_mode_that_runs_is_not_doubted(file):
    story = Story(file, text(mode="iptables", oomScoreAdj=1))
    story.useless = {Mode.IPTABLES}  # the command line may say another
    assert story.watch() == ("oomScoreAdj",)


def test_going_back_to_what_was_there_ends_nothing(file):
    assert Story(file, "mode: [\n", text(mode="iptables")).watch() is None


def test_a_file_that_is_missing_for_a_moment_is_waited_for(file, caplog):
    story = Story(file, file.unlink, lambda: None, text(mode="iptables"), text(mode="nftables"))
    assert story.watch() == ("mode", "nodePortAddresses")
    (record,) = caplog.records
    assert "cannot be read: No such file" in record.getMessage()


def test_a_mounted_config_map_is_followed_through_its_links(tmp_path):
    for version, mode in (("v1", "iptables"), ("v2", "ipvs")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "config.conf").write_text(text(mode=mode))
    (tmp_path / "..data").symlink_to("v1")
    path = tmp_path / "config.conf"
    path.symlink_to("..data/config.conf")

    def swap():
        (tmp_path / "..tmp").symlink_to("v2")
        os.replace(tmp_path / "..tmp", tmp_path / "..data")

    assert Story(path, swap).watch() == ("mode",)

"""What becomes of the words, and of the output, of `kproxy kube-proxy`."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from kproxy.cli.group import main


@pytest.mark.parametrize("word", ["--version", "--", "x"])
def test_what_follows_two_dashes_is_no_flag(word):
    result = CliRunner().invoke(main, ["kube-proxy", "--", word])
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"takes no arguments, got {word!r}" in result.stderr


@pytest.mark.parametrize("word", ["--version", "--help"])
@pytest.mark.parametrize("output", [">&-", ">/dev/full"])
def test_output_that_nobody_takes_is_an_error_of_one_line(word, output):
    script = "import sys; from kproxy.cli.kube_proxy import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$@" {output}', "sh", sys.executable, "-c", script, word],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("kube-proxy: cannot write to standard output: ")
    assert done.stderr.count("\n") == 1

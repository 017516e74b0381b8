"""Who may use what among the tests: a suite stands alone, and what several need is support."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SUITES = ("unit", "kernel", "cluster", "deploy", "vm")


def imported(file):
    """Return the modules of the tests that a file imports from, split at their dots."""
    for node in ast.walk(ast.parse(file.read_text())):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module == "tests":
            modules = [f"tests.{each.name}" for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        elif isinstance(node, ast.Import):
            modules = [each.name for each in node.names]
        yield from (each.split(".") for each in modules if each.startswith("tests."))


@pytest.mark.parametrize("room", [*SUITES, "support"])
def test_a_suite_uses_nothing_of_another_and_support_nothing_of_any(room):
    foreign = [
        f"{file.relative_to(TESTS)}: {'.'.join(module)}"
        for file in sorted((TESTS / room).rglob("*.py"))
        for module in imported(file)
        if module[1] not in (room, "support")
    ]
    assert not foreign


def test_a_unit_test_needs_no_root_and_no_other_program():
    marked = [
        str(file.relative_to(TESTS))
        for file in (TESTS / "unit").rglob("*.py")
        if re.search(r"pytest\.mark\.(kernel|cluster|vm)\b", file.read_text())
    ]
    assert not marked

"""A table is taken along as Markdown."""

import pytest

from tests.page.test_page import simulated, state

pytestmark = pytest.mark.browser


def test_the_comparison_is_copied_as_markdown(visit):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    simulated(page)
    page.click("#run")
    state(page, "done")
    page.click(".stage .copier")
    page.wait_for_selector(".stage .copier:has-text('Copied')")
    head, rule, *rows = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert head.startswith("| Median over the rounds |") and rule == f"|{' --- |' * (head.count('|') - 1)}"
    assert any(row.startswith("| Tokens per second |") and "tok/s" in row for row in rows)
    assert {row.count("|") for row in rows} == {head.count("|")}

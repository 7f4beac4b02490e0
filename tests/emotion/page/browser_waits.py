"""Waiting for a page whose security policy forbids the `eval` by which Playwright's own wait polls."""

import time
from typing import Any


def wait_for(page: Any, expression: str, timeout_s: float = 120.0) -> None:
    """Returns as soon as a JavaScript expression is true."""
    end_s = time.monotonic() + timeout_s
    while not page.evaluate(expression):
        if time.monotonic() > end_s:
            seen = page.evaluate("document.body.innerText")
            raise AssertionError(f"never true: {expression}\n{seen}")
        page.wait_for_timeout(50)

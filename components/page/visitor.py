"""Visitors: where a request comes from, as far as that can be known."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from gradio.context import LocalContext

PLAIN: ContextVar[str] = ContextVar("visitor", default="")


def address(request: Any) -> str:
    """The address of a request; on a Space the last one on its way that is not the Space's own."""
    if os.environ.get("SPACE_ID"):
        hops = dict(request.headers).get("x-forwarded-for", "").split(",")
        return next((hop.strip() for hop in reversed(hops) if _public(hop.strip())), "")
    return request.client.host if request.client else ""


def here() -> str:
    """The address behind what goes on now: a plain request, or one of Gradio's events; empty where it is neither."""
    event = LocalContext.request.get(None)
    return PLAIN.get() or (address(event) if event else "")


@contextmanager
def visited(request: Any) -> Iterator[None]:
    """While a plain request is answered, `here` says where it came from."""
    token = PLAIN.set(address(request))
    try:
        yield
    finally:
        PLAIN.reset(token)


def foreign(headers: Mapping[str, str]) -> bool:
    """Whether a page of another site asks: browsers say so themselves."""
    origin = headers.get("origin")
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return True
    return bool(origin) and urlsplit(origin).netloc not in (headers.get("host"), os.environ.get("SPACE_HOST"))


def _public(hop: str) -> bool:
    try:
        return ip_address(hop).is_global
    except ValueError:
        return False

"""The page that a person sees who opens the router's address in a browser."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from functools import cache
from html import escape
from pathlib import Path
from typing import Final

from llm_router import __version__

_ROUTES: Final = (
    ("/health", "is it alive, and which providers have a key"),
    ("/metrics", "requests, latency, cost"),
    ("/v1/models", "names to write as model"),
    ("/config", "the configuration in force"),
    ("/circuit-breaker", "which models are resting after failures"),
    ("/v1/usage", "what was spent, by model"),
    ("/openapi.json", "every route, for machines"),
)
_INLINE: Final = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


def front_page(address: str) -> tuple[str, dict[str, str]]:
    """The page and its headers; `address` is how the reader reached us. Reads the disk.

    The page asks this router for figures, and nobody else for anything.
    """
    return _template().replace("{{address}}", escape(address)), _headers()


@cache
def _headers() -> dict[str, str]:
    """What a browser may do with the page: run its own script, ask its own origin, and nothing more."""
    allowed = {name: f"'sha256-{_digest(text)}'" for name, text in _INLINE.findall(_template())}
    policy = (
        "default-src 'none'",
        "connect-src 'self'",
        "img-src data:",
        f"script-src {allowed['script']}",
        f"style-src {allowed['style']}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


@cache
def _template() -> str:
    rows = "".join(f'<tr><td><a href="{path}">{path}</a></td><td>{escape(text)}</td></tr>' for path, text in _ROUTES)
    page = Path(__file__).with_name("page.html").read_text("utf-8")
    return page.replace("{{version}}", __version__).replace("{{routes}}", rows)


def _digest(text: str) -> str:
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()

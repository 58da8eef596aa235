"""The page that a person sees who opens the router's address in a browser."""

from __future__ import annotations

from html import escape

from llm_router import __version__

_ROUTES = (
    ("/health", "is it alive, and which providers have a key"),
    ("/metrics", "requests, latency, cost"),
    ("/v1/models", "names to write as model"),
    ("/config", "the configuration in force"),
    ("/circuit-breaker", "which models are resting after failures"),
    ("/v1/usage", "what was spent, by model"),
    ("/openapi.json", "every route, for machines"),
)


def front_page(address: str) -> str:
    """The page, without scripts and without anything from elsewhere. `address` is how the reader reached us."""
    rows = "".join(f'<tr><td><a href="{path}">{path}</a></td><td>{escape(text)}</td></tr>' for path, text in _ROUTES)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>llm-router</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52em; margin: 3em auto; padding: 0 1em }}
pre {{ background: #8882; padding: .8em; overflow-x: auto }}
td {{ padding: .1em 1em .1em 0 }}
:root {{ color-scheme: light dark }}
</style>
<h1>llm-router {__version__}</h1>
<p>An OpenAI-compatible proxy: send a chat to the model <code>router</code>; it finds out what kind of task it is,
asks the first able model of that category's chain, and moves on to the next one if that fails.</p>
<pre>curl -N {escape(address)}/v1/chat/completions -d '{{
  "model": "router", "stream": true,
  "messages": [{{"role": "user", "content": "Hello"}}]
}}'</pre>
<table>{rows}</table>
<p>The guides are in the folder <code>docs/</code> of the source; <code>docs/API.md</code> tells all about these
routes.</p>
</html>
"""

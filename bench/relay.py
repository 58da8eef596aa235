"""The bare relay: the least that an aiohttp gateway does. It parses, sets `model`, and passes the answer on."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator

import aiohttp
import orjson
from aiohttp import web

SESSION = web.AppKey("session", aiohttp.ClientSession)
UPSTREAM = web.AppKey("upstream", str)
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer sk-bench"}


async def relay(request: web.Request) -> web.StreamResponse:
    """One request."""
    body = orjson.loads(await request.read())
    body["model"] = "gpt-4o-mini"
    upstream = request.app[UPSTREAM]
    async with request.app[SESSION].post(upstream, data=orjson.dumps(body), headers=HEADERS) as answer:
        response = web.StreamResponse(status=answer.status)
        response.content_type = answer.content_type
        response.content_length = answer.content_length
        await response.prepare(request)
        async for data in answer.content.iter_any():
            await response.write(data)
        await response.write_eof()
        return response


async def keep_session(app: web.Application) -> AsyncIterator[None]:
    """One session without limits for the life of the application."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        app[SESSION] = session
        yield


def main() -> None:
    """Serves on uvloop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    args = parser.parse_args()
    import uvloop

    app = web.Application(client_max_size=32 << 20)
    app[UPSTREAM] = args.upstream
    app.router.add_post("/v1/chat/completions", relay)
    app.cleanup_ctx.append(keep_session)
    web.run_app(app, host="127.0.0.1", port=args.port, access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()

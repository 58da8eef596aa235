"""Names to addresses, each asked for once however many connections are waiting, and remembered for seconds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import math
import socket
import threading
from collections.abc import Sequence
from functools import partial

from aiohappyeyeballs import AddrInfoType

from llm_router.proxy.upstream.errors import ConnectFailed, NoResources

TTL_SECONDS = 10.0
# Where the nameserver is silent or fails, what it said before does for that long; nobody waits longer for it than this.
STALE_SECONDS = 3600.0
PATIENCE_SECONDS = 1.0
MAX_NAMES = 256

# What says nothing of the upstream: this machine has no descriptor, memory or port left.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_Key = tuple[str, int]
_NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


class Resolver:
    """Resolves host and port. A burst of new connections to one provider costs one lookup in one thread.

    The lookups belong to this object, not to who asked first: that one may be cancelled while others wait.
    """

    def __init__(self) -> None:
        self._known: dict[_Key, tuple[float, Sequence[AddrInfoType]]] = {}
        self._lookups: dict[_Key, asyncio.Task[Sequence[AddrInfoType]]] = {}
        self._best: dict[_Key, str] = {}  # the addresses that won a race without being asked first

    def __repr__(self) -> str:
        return f"<Resolver known={len(self._known)} asking={len(self._lookups)}>"

    def known(self, host: str, port: int, now: float) -> Sequence[AddrInfoType]:
        """The addresses in the system's order, where they need not be asked for; `now` is the loop's time."""
        until, addresses = self._known.get((host, port), (0.0, ()))
        return addresses if now < until else ()

    async def resolve(self, host: str, port: int) -> Sequence[AddrInfoType]:
        """The addresses in the system's order. Raises ConnectFailed."""
        loop = asyncio.get_running_loop()
        if addresses := self.known(host, port, loop.time()):
            return addresses
        if literal := _literal(host, port):
            self._remember((host, port), math.inf, literal)
            return literal
        lookup = self._lookups.get((host, port)) or self._ask(loop, (host, port))
        stale = self.known(host, port, loop.time() - STALE_SECONDS)
        # Being cancelled here does not cancel the lookup.
        await asyncio.wait((lookup,), timeout=PATIENCE_SECONDS if stale else None)
        if not lookup.done():
            return stale
        if lookup.cancelled():
            raise ConnectFailed("the client is closed")
        try:
            return self._in_order((host, port), lookup.result())
        except (OSError, UnicodeError) as error:
            if stale and not (isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME):
                return stale
            words = "the upstream's name could not be resolved"
            raise (NoResources if is_shortage(error) else ConnectFailed)(words) from None

    def prefer(self, host: str, port: int, address: str) -> None:
        """The address that answered goes first from now on: those before it may be dead, as half an IPv6 is."""
        if len(self._best) >= MAX_NAMES:
            self._best.clear()
        self._best[host, port] = address
        if known := self._known.get((host, port)):
            self._remember((host, port), *known)

    def forget(self, host: str, port: int) -> None:
        """The addresses led nowhere: the next connection asks again."""
        self._known.pop((host, port), None)
        self._best.pop((host, port), None)

    def forget_all(self) -> None:
        """Every next connection asks again."""
        self._known.clear()
        self._best.clear()

    def close(self) -> None:
        """Gives up the lookups under way."""
        for lookup in self._lookups.values():
            lookup.cancel()

    def _ask(self, loop: asyncio.AbstractEventLoop, key: _Key) -> asyncio.Task[Sequence[AddrInfoType]]:
        lookup = loop.create_task(_look_up(loop, *key))
        self._lookups[key] = lookup
        lookup.add_done_callback(lambda task: self._answered(loop, key, task))
        return lookup

    def _answered(
        self, loop: asyncio.AbstractEventLoop, key: _Key, lookup: asyncio.Task[Sequence[AddrInfoType]]
    ) -> None:
        del self._lookups[key]
        if lookup.cancelled() or lookup.exception() is not None:
            return
        self._remember(key, loop.time() + TTL_SECONDS, lookup.result())

    def _remember(self, key: _Key, until: float, addresses: Sequence[AddrInfoType]) -> None:
        if len(self._known) >= MAX_NAMES:
            self._known.clear()
        self._known[key] = until, self._in_order(key, addresses)

    def _in_order(self, key: _Key, addresses: Sequence[AddrInfoType]) -> Sequence[AddrInfoType]:
        best = self._best.get(key)
        return sorted(addresses, key=lambda one: one[4][0] != best) if best else addresses


async def _look_up(loop: asyncio.AbstractEventLoop, host: str, port: int) -> Sequence[AddrInfoType]:
    """Asks the system in a thread of its own, which the end of the process need not wait for. Raises OSError.

    Not in the loop's own way: uvloop's ends the process where the system grants it no threads, and has two of them, so
    that two names which a nameserver is silent about would hold up all others for as long as the system waits.
    """
    answer: asyncio.Future[Sequence[AddrInfoType]] = loop.create_future()

    def ask() -> Sequence[AddrInfoType]:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)

    def ask_and_tell() -> None:
        try:
            told = partial(answer.set_result, ask())
        except Exception as error:
            told = partial(answer.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: answer.done() or told())

    try:
        threading.Thread(target=ask_and_tell, name="lookup", daemon=True).start()
    except RuntimeError:
        return await loop.run_in_executor(None, ask)  # those threads are there already
    return await answer


def is_shortage(error: Exception, addresses: Sequence[AddrInfoType] = ()) -> bool:
    """Whether it is this machine's fault that there are no addresses, or no connection to any of them."""
    if not isinstance(error, OSError) or isinstance(error, socket.gaierror):  # whose numbers are of another kind
        return False
    if error.errno == errno.EADDRNOTAVAIL:  # also said where there is no IPv6, which does not pass
        return any(address[0] == socket.AF_INET for address in addresses)
    return error.errno in _SHORTAGES


def _literal(host: str, port: int) -> Sequence[AddrInfoType]:
    """The address that an IP literal is, without a thread; nothing for names, and for literals with a scope."""
    if ":" not in host and not host[-1:].isdigit():
        return ()
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return ()
    if version == 4:
        return ((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)),)
    if "%" in host:
        return ()
    return ((socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0)),)

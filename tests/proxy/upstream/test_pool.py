"""Which idle connection is used, and which are let go."""

from __future__ import annotations

import math
from typing import cast

from llm_router.proxy.upstream.connection import Connection
from llm_router.proxy.upstream.pool import Pool
from llm_router.proxy.upstream.request import Origin

HERE = Origin(True, "here.test", 443)


class Idle:
    """As much of a connection as the pool looks at."""

    def __init__(self, pool: Pool, origin: Origin = HERE, until: float = 15.0) -> None:
        self.pool = pool
        self.origin = origin
        self.idle_until = until
        self.watch_from = math.inf
        self.watched = 0
        self.closed = False
        self.silent = False
        pool.add(self.itself)
        pool.connection_idle(self.itself)

    @property
    def itself(self) -> Connection:
        return cast(Connection, self)

    def watch(self) -> None:
        self.watch_from = math.inf
        self.watched += 1

    def vanished(self) -> bool:
        return self.silent

    def abort(self) -> None:
        self.closed = True
        self.pool.connection_gone(self.itself)


def test_the_last_used_comes_first() -> None:
    """The warmest connection is reused, so that the others may grow old and go."""
    pool = Pool()
    first, second = Idle(pool), Idle(pool)
    assert pool.take(HERE, 1.0) is second
    assert pool.take(HERE, 1.0) is first
    assert pool.take(HERE, 1.0) is None
    assert (pool.idle, pool.open) == (0, 2)


def test_origins_do_not_mix() -> None:
    """Scheme, host and port must all be the same."""
    pool = Pool()
    Idle(pool)
    for other in (Origin(False, "here.test", 443), Origin(True, "there.test", 443), Origin(True, "here.test", 444)):
        assert pool.take(other, 1.0) is None


def test_closed_and_expired_ones_are_not_handed_out() -> None:
    """A connection that is closed or too old is dropped at once."""
    pool = Pool()
    good, old, closed = Idle(pool, until=25.0), Idle(pool, until=15.0), Idle(pool, until=25.0)
    closed.closed = True
    assert pool.take(HERE, 15.0) is good
    assert pool.take(HERE, 15.0) is None
    assert old.closed
    assert (pool.idle, pool.open) == (0, 1)


def test_sweep_closes_what_is_old() -> None:
    """The sweep closes idle connections that nobody asks for, and only the old ones."""
    pool = Pool()
    old, young = Idle(pool, until=15.0), Idle(pool, until=25.0)
    elsewhere = Idle(pool, Origin(False, "there.test", 80))
    pool.sweep(14.9)
    assert (pool.idle, pool.open) == (3, 3)
    pool.sweep(15.0)
    assert (old.closed, young.closed, elsewhere.closed) == (True, False, True)
    assert (pool.idle, pool.open) == (1, 1)


def test_sweep_has_old_ones_watched() -> None:
    """A connection that has been there for long is watched once, busy or not."""
    pool = Pool()
    idle, young, busy = Idle(pool, until=math.inf), Idle(pool, until=math.inf), Idle(pool, until=math.inf)
    busy.watch_from = idle.watch_from = 60.0
    young.watch_from = 90.0
    assert pool.take(HERE, 1.0) is busy
    for now in (59.9, 60.0, 61.0):
        pool.sweep(now)
    assert (busy.watched, idle.watched, young.watched) == (1, 1, 0)


def test_where_one_leads_nowhere_no_idle_one_is_trusted() -> None:
    """The network may be another one by now: each kept connection would cost its request the same wait."""
    pool = Pool()
    idle, elsewhere, busy = Idle(pool), Idle(pool, Origin(True, "there.test", 443)), Idle(pool)
    assert pool.take(HERE, 1.0) is busy
    pool.sweep(1.0)
    assert (pool.idle, pool.open) == (2, 3)
    busy.silent = True
    pool.sweep(2.0)
    assert (idle.closed, elsewhere.closed) == (True, True)
    assert pool.idle == 0


def test_close_takes_the_busy_ones_too() -> None:
    """When the router stops nothing is left open."""
    pool = Pool()
    busy, idle = Idle(pool), Idle(pool)
    pool.take(HERE, 1.0)
    pool.close()
    assert busy.closed
    assert idle.closed
    assert repr(pool) == "<Pool open=0 idle=0>"


def test_an_origin_that_nobody_uses_is_forgotten() -> None:
    """Hosts come and go with configurations; the pool holds no entry for what it has no connection to."""
    pool = Pool()
    Idle(pool)
    Idle(pool, Origin(True, "there.test", 443), until=100.0)
    pool.sweep(20.0)
    assert [key for key, waiting in pool._idle.items() if waiting] == list(pool._idle)
    assert (pool.idle, pool.open) == (1, 1)

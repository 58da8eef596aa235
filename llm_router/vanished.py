"""Peers that vanish without a word: a laptop asleep, a network left, a NAT that forgot. The kernel is told to look for
them, and asked what it knows of one.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import Final, Protocol

# A silent peer is asked whether it is still there. That also keeps the connection in the memory of firewalls and NATs,
# some of which forget it after a minute.
QUIET_SECONDS: Final = 15
ASK_EVERY_SECONDS: Final = 5
ASK_TIMES: Final = 5
# After that long without a sign of life a peer is gone. Long enough for a change of Wi-Fi or a tunnel.
GONE_SECONDS: Final = QUIET_SECONDS + ASK_EVERY_SECONDS * ASK_TIMES

_WATCH = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    # macOS has it by the older name
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", QUIET_SECONDS),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", ASK_EVERY_SECONDS),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", ASK_TIMES),
)
_OPTIONS = tuple((level, getattr(socket, name), value) for level, name, value in _WATCH if hasattr(socket, name))

# The beginning of Linux' struct tcp_info, which only ever grows at its end: retransmits, probes, backoff; rto (us);
# last_data_sent, last_ack_recv (ms).
_INFO = struct.Struct("@2xBBB3xI32xI8xI")
_LINUX = sys.platform.startswith("linux")
# A peer that has no room, but is there, answers each of these: more than a few without an answer were not just lost.
_LOST_PROBES = 4


class Socket(Protocol):
    """As much of a socket as the loops lend of theirs."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def watch(sock: Socket) -> None:
    """Has the kernel ask a silent peer, and close the connection if it does not answer; a listener passes that on."""
    for level, option, value in _OPTIONS:
        with contextlib.suppress(OSError):  # a peer that has left already shows soon enough
            sock.setsockopt(level, option, value)


def unheard_for(sock: Socket) -> float:
    """For how many seconds the peer has not acknowledged what was sent again and again.

    0 where it owes no acknowledgement, or the system does not tell. A peer that acknowledges but does not read is
    there: that is why this is not left to TCP_USER_TIMEOUT, which closes such a connection as well.
    """
    if not _LINUX:
        return 0.0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError:
        return 0.0  # closed by now
    retransmits, probes, backoff, timeout, sent, heard = map(int, _INFO.unpack(info))
    if retransmits:
        # The last acknowledgement may be of long ago, for want of anything to acknowledge. But each wait for this one
        # was twice the one before, up to the last time that it was sent.
        return min((timeout - (timeout >> backoff)) / 1e6 + sent / 1e3, heard / 1e3)
    return heard / 1e3 if probes >= _LOST_PROBES else 0.0

"""A peer that vanishes without a word, as a laptop that falls asleep does, on loopback and without being root."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys

import pytest

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER, which the socket module does not know
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # one instruction: of each packet keep 0 bytes

linux_alone = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's packet filters")


def vanish(sock: socket.socket) -> None:
    """From now on the kernel drops what arrives for this socket, before TCP sees it: nothing is acknowledged."""
    program = ctypes.create_string_buffer(_DROP_ALL)
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))

"""Sockets to listen on: those that systemd hands over, or one of our own.

sd_listen_fds(3): `LISTEN_PID` says for whom they are, `LISTEN_FDS` how many, from descriptor 3 on.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from orchestration.errors import KlorosError, SettingsInvalid

_FIRST: Final = 3
_BACKLOG: Final = 128


class Listening(NamedTuple):
    """What this process listens on."""

    sockets: tuple[socket.socket, ...]
    handed_over: bool  # by systemd, which goes on listening when this process ends

    @property
    def addresses(self) -> tuple[str, ...]:
        """Each address as people write it: `127.0.0.1:9410`, `[::1]:9410`, a path."""
        return tuple(_address(one) for one in self.sockets)

    @property
    def beyond_this_host(self) -> tuple[str, ...]:
        """The addresses that others than this host can reach."""
        return tuple(_address(one) for one in self.sockets if not _is_local(one))


def handed_over(environ: Mapping[str, str]) -> Listening | None:
    """Take the sockets that systemd hands over; None when it hands over none to this process.

    Raises:
        SettingsInvalid: one of them is not a stream socket that listens.
    """
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal() or int(count) == 0:
        return None
    sockets = []
    for descriptor in range(_FIRST, _FIRST + int(count)):
        os.set_inheritable(descriptor, False)
        try:
            taken = socket.socket(fileno=descriptor)
        except OSError as error:
            raise _no_listener(descriptor) from error
        if not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise _no_listener(descriptor)
        sockets.append(taken)
    return Listening(tuple(sockets), handed_over=True)


def listen(host: str, port: int) -> Listening:
    """Listen on every address of a host name, or on one address.

    Raises:
        SettingsInvalid: there is no such address here.
        KlorosError: the port is in use, or not ours to take.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SettingsInvalid(f"pulse.host {host!r}: {error}", hint="write an address, such as 127.0.0.1 or ::1") from error
    sockets: list[socket.socket] = []
    for family, _, _, _, address in dict.fromkeys(found):
        if port == 0 and sockets:
            break  # another family's free port would be another one
        sockets.append(_listener(family, address))
    return Listening(tuple(sockets), handed_over=False)


def _listener(family: int, address: Sequence[object]) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(tuple(address))
        one.listen(_BACKLOG)
    except OSError as error:
        one.close()
        where = f"{address[0]} port {address[1]}"
        hint = f"who has it: ss -ltnp 'sport = :{address[1]}'; choose another with --port, or stop kloros-pulse.socket"
        raise KlorosError(f"can't listen on {where}: {error.strerror}", hint=hint) from error
    return one


def _no_listener(descriptor: int) -> SettingsInvalid:
    hint = "the socket unit needs ListenStream= and Accept=no"
    return SettingsInvalid(f"descriptor {descriptor}, which systemd handed over, is no socket that listens", hint=hint)


def _is_local(one: socket.socket) -> bool:
    """Tell whether only this host reaches it; of a socket in the file system its folder says who does."""
    if one.family == socket.AF_UNIX:
        return True
    address = ipaddress.ip_address(one.getsockname()[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _address(one: socket.socket) -> str:
    name = one.getsockname()
    if one.family == socket.AF_UNIX:
        return str(name)
    return f"[{name[0]}]:{name[1]}" if one.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"

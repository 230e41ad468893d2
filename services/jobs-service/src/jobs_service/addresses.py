"""Where webhooks may go: URLs that are fit for one, and public addresses, unless the settings allow others.

The address that is connected to is the one that is judged, so a name that changes its mind gets nowhere else.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from threading import Thread
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpcore2

from jobs_service.settings import Settings
from triton_common.errors import Unprocessable
from triton_common.schemas import ProblemDetail
from triton_common.settings import Environment

Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Awaitable[list[Address]]]
"""(name or address, port) → its addresses; raises OSError when there are none."""

# IANA's special-purpose registries, with what they name but call global left out where no receiver of ours can be
NOT_PUBLIC_4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' NAT, and cloud metadata of some
        "127.0.0.0/8",
        "168.63.129.16/32",  # public by its number alone: Azure's own, reachable from each of its machines
        "169.254.0.0/16",  # link-local: cloud metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
PUBLIC_6: Final = IPv6Network("2000::/3")  # all that is given out; the rest is local, multicast or reserved
NOT_PUBLIC_6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocols' own: Teredo, ORCHID, benchmarks
        "2001:db8::/32",
        "2002::/16",  # 6to4, which holds an IPv4 address and is given up (RFC 7526)
        "3fff::/20",
    )
)
NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052: holds an IPv4 address
LOCAL_NAMES: Final = frozenset({"localhost", "local", "internal"})  # RFC 6761, RFC 6762, ICANN's private-use domain
CONNECT_TIMEOUT: Final = 3.0  # seconds an address, so that a dead one leaves time for the next

_PRINTABLE = re.compile(r"[!-~]{1,2048}")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*\.?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class WebhookUrlRefused(Unprocessable):
    """Webhooks cannot be sent to this URL."""


class AddressRefused(Exception):
    """A name leads to an address that webhooks may not be sent to."""


@dataclass(frozen=True)
class Reach:
    """What the settings allow beyond https to public addresses."""

    private: bool = False
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    plain_http: bool = False

    @classmethod
    def of(cls, settings: Settings) -> "Reach":
        """As the settings say; dev sends over http too."""
        private = settings.webhook_allow_private
        return cls(
            private=private,
            networks=tuple(settings.webhook_allowed_networks),
            plain_http=private or settings.environment is Environment.DEV,
        )

    def permits(self, address: Address) -> bool:
        """Whether webhooks may go there; an IPv4 address inside an IPv6 one is judged as itself."""
        judged = _inner(address)
        if self.private or any(judged in network for network in self.networks):
            return True
        if isinstance(judged, IPv4Address):
            return not any(judged in network for network in NOT_PUBLIC_4)
        return judged in PUBLIC_6 and not any(judged in network for network in NOT_PUBLIC_6)


def _inner(address: Address) -> Address:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def check_url(url: str, *, reach: Reach) -> None:
    """Raises WebhookUrlRefused, with a sentence, for a URL that no webhook could be sent to. Asks no DNS."""
    if problem := _problem(url, reach):
        raise WebhookUrlRefused(
            problem, details=[ProblemDetail(field="body.url", issue=problem, code=WebhookUrlRefused.code)]
        )


def _problem(url: str, reach: Reach) -> str | None:
    if not _PRINTABLE.fullmatch(url) or "\\" in url:
        return "Write the URL in ASCII without spaces or backslashes, in 2048 characters at most; a name as xn--…."
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "This is not a URL."
    schemes = ("https", "http") if reach.plain_http else ("https",)
    problems = {
        f"The URL must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}.": parts.scheme not in schemes,
        "The URL must not hold a user name or password: verify the signature instead.": "@" in parts.netloc,
        "The URL must not have a fragment: it would not be sent.": "#" in url,
        "The port must be 80, 443, or 1024 and above: the others belong to other protocols.": (
            port is not None and port < 1024 and port not in (80, 443)
        ),
    }
    return next((problem for problem, found in problems.items() if found), None) or _host_problem(parts, reach)


def _host_problem(parts: SplitResult, reach: Reach) -> str | None:
    host = parts.hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        if not _NAME.fullmatch(host) or _NUMBER.fullmatch(last):
            return "The URL has no valid host."
        named_here = last in LOCAL_NAMES or "." not in host.rstrip(".")
        if named_here and not (reach.private or reach.networks):
            return f"{host} is not a public name. {_HOW_TO_ALLOW}"
        return None
    if "%" in host:
        return "The URL has no valid host."
    return None if reach.permits(address) else f"{host} is not a public address. {_HOW_TO_ALLOW}"


_HOW_TO_ALLOW = "An operator can allow it by JOBS_WEBHOOK_ALLOWED_NETWORKS or JOBS_WEBHOOK_ALLOW_PRIVATE."


async def look_up(name: str, port: int) -> list[Address]:
    """Ask the system, which may be silent for half a minute: in a thread that no exit of the process waits for, as it
    would for one of an executor."""
    found: Future[list[Address]] = Future()
    found.set_running_or_notify_cancel()

    def ask() -> None:
        try:
            entries = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            found.set_result([ip_address(str(entry[4][0])) for entry in entries])
        except Exception as error:  # noqa: BLE001  it is raised to who waits
            found.set_exception(error)

    Thread(target=ask, name="webhook-names", daemon=True).start()
    return await asyncio.wrap_future(found)


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that the reach permits. TLS and the Host header still go by the name."""

    def __init__(self, reach: Reach, *, resolve: Resolver) -> None:
        self._reach = reach
        self._resolve = resolve
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore2's word
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address that answers. Raises AddressRefused when any of them may not be called."""
        addresses = await self._resolve(host, port)
        if not all(self._reach.permits(address) for address in addresses):
            raise AddressRefused
        failure: Exception = httpcore2.ConnectError("the name has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(
                    str(address), port, timeout or CONNECT_TIMEOUT, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

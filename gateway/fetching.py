"""Images from the network, guarded: only from allowed domains, only from public addresses, little and soon.

A name is resolved once and the connection is made to the address that was looked at, so that an answer that changes
changes nothing. Redirects are looked at as the first URL was. Off until domains are allowed.
Source: OWASP, Server-Side Request Forgery Prevention Cheat Sheet.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from gateway.errors import BadRequest, BodyTooLarge
from gateway.settings import FetchSettings

logger = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

PORTS = {"https": 443, "http": 80}
MAX_REDIRECTS = 3
MAX_URL_CHARS = 8192
HEADERS = {"Accept": "image/*, video/*", "Accept-Encoding": "identity", "User-Agent": "lookonce"}
# Addresses of IPv4 within IPv6 that translate to others.
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# All of IPv6 that the public network has; `is_global` only leaves out what is registered as something else.
PUBLIC6 = ipaddress.ip_network("2000::/3")


class Fetcher:
    """Fetches images. `resolve` and `is_allowed` say which addresses a name has, and which may be connected to."""

    def __init__(
        self, limits: FetchSettings, resolve: Resolve | None = None, is_allowed: Callable[[str], bool] | None = None
    ) -> None:
        self._limits = limits
        self._resolve = resolve or resolve_name
        self._is_allowed = is_allowed or is_public
        self._http = httpx.AsyncClient(
            headers=HEADERS,
            timeout=limits.image_s,
            follow_redirects=False,
            trust_env=False,
            http2=False,
            # Connections are known by their address here: one that was made for a name is not another name's.
            limits=httpx.Limits(max_keepalive_connections=0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )

    @property
    def most_bytes(self) -> int:
        """Of all that is fetched for one image or video."""
        return max(self._limits.image_bytes, self._limits.video_bytes)

    async def close(self) -> None:
        """Ends the connections."""
        await self._http.aclose()

    def check(self, url: str, param: str) -> httpx.URL:
        """The URL, if its words alone allow it. Raises `BadRequest`."""
        if not self._limits.domains:
            raise _not_allowed(
                param,
                "images are not fetched from the network here. Send the image as a data URL, or upload it with "
                "POST /v1/images and send 'image:ID'",
            )
        try:
            parsed = httpx.URL(url) if len(url) <= MAX_URL_CHARS else None
        except (httpx.InvalidURL, ValueError):
            parsed = None
        if parsed is None or parsed.scheme not in PORTS or parsed.userinfo or not parsed.host:
            raise BadRequest(
                f"{param}: this is not a URL that images are fetched from", param=param, code="bad_image_url"
            )
        if not self._is_listed(parsed):
            raise _not_allowed(param, "images are not fetched from this host or port")
        return parsed

    async def fetch(self, url: str, param: str) -> bytes:
        """The bytes of an image.

        Raises:
            BadRequest: the URL, or one that it leads to, is not allowed; nothing, or no success, is answered in time.
            BodyTooLarge: it is over the limit.
        """
        try:
            async with asyncio.timeout(self._limits.image_s):
                return await self._follow(self.check(url, param), param)
        except TimeoutError as exc:
            raise _failed(param, "it did not come in time", "image_url_timeout") from exc
        except (httpx.HTTPError, OSError) as exc:
            logger.info("an image could not be fetched", extra={"why": type(exc).__name__})
            raise _failed(param, "its host does not answer") from exc

    async def _follow(self, url: httpx.URL, param: str) -> bytes:
        for _ in range(1 + MAX_REDIRECTS):
            found = await self._ask(url, param)
            if isinstance(found, bytes):
                return found
            url = self.check(str(url.join(found)), param)
        raise _failed(param, "it leads from one URL to the next")

    async def _ask(self, url: httpx.URL, param: str) -> bytes | str:
        """The image, or where it is said to be instead."""
        host = url.raw_host.decode("ascii")
        pinned = url.copy_with(host=await self._address(host, url, param))
        request = self._http.build_request("GET", pinned, headers={"Host": url.netloc.decode("ascii")})
        # TLS still asks for the name, and checks the certificate against it.
        request.extensions["sni_hostname"] = host
        response = await self._http.send(request, stream=True)
        try:
            if response.is_redirect and "location" in response.headers:
                return response.headers["location"]
            if response.status_code != httpx.codes.OK:
                raise _failed(param, f"its host answered with {response.status_code}")
            return await self._read(response, param)
        finally:
            await response.aclose()

    async def _address(self, host: str, url: httpx.URL, param: str) -> str:
        try:
            addresses = await self._resolve(host.rstrip("."), _port(url))
        except UnicodeError as exc:
            raise _failed(param, "its host's name cannot be one") from exc
        # One that is not allowed among others is a trick, or a mistake that would be a danger.
        if not addresses or not all(self._is_allowed(address) for address in addresses):
            raise _not_allowed(param, "images are not fetched from this host or port")
        return addresses[0]

    async def _read(self, response: httpx.Response, param: str) -> bytes:
        most = self._limits.image_bytes
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > most:
                raise BodyTooLarge(f"{param}: the image is over the limit of {most} bytes", param=param)
        if not data:
            raise BadRequest(f"{param}: the image is empty", param=param, code="empty_image")
        return bytes(data)

    def _is_listed(self, url: httpx.URL) -> bool:
        host, port = url.raw_host.decode("ascii").rstrip(".").lower(), _port(url)
        return any(_matches(host, port, domain, PORTS[url.scheme]) for domain in self._limits.domains)


def _port(url: httpx.URL) -> int:
    return url.port or PORTS[url.scheme]


def _matches(host: str, port: int, allowed: str, usual_port: int) -> bool:
    """Whether a host and port are those of `example.org`, `*.example.org` or `example.org:8443`."""
    domain, _, allowed_port = allowed.partition(":")
    is_host = host.endswith(domain[1:]) if domain.startswith("*.") else host == domain
    return is_host and port == (int(allowed_port) if allowed_port else usual_port)


def _not_allowed(param: str, why: str) -> BadRequest:
    return BadRequest(f"{param}: {why}", param=param, code="url_not_allowed")


def _failed(param: str, why: str, code: str = "image_url_failed") -> BadRequest:
    return BadRequest(f"{param}: the image could not be fetched: {why}", param=param, code=code)


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """A name's addresses, as the system resolves it. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def is_public(text: str) -> bool:
    """Whether an address is one of the public network, whatever it is written or wrapped in."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(_is_public(each) for each in (address, *_inner(address)))


def _is_public(address: Address) -> bool:
    is_assigned = address.version == 4 or address in PUBLIC6 or bool(_inner(address))
    return is_assigned and address.is_global and not address.is_multicast


def _inner(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address] = [each for each in (address.ipv4_mapped, address.sixtofour) if each is not None]
    if address.teredo is not None:
        found += address.teredo
    if address in NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found

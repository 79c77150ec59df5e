"""Which addresses results may be posted to, by themselves and by what a real connection goes to."""

import ipaddress
import socket
from pathlib import Path
from typing import Any

import pytest

from app.address.web import Outbound, read_networks, written_address
from app.config import load_settings
from app.domain.notices.notice import Answered
from app.domain.relay.addresses import may_post_to
from app.errors import UserError
from app.relay_client import REFUSED, REFUSED_PLAIN, RelayClient
from app.relay_options import endpoint_option, refusal_of
from tests.integration.relay.receiver import receiving

PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "169.254.170.2",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:100.64.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "fe80::1",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("text", PRIVATE)
def test_a_private_address_is_refused_and_may_be_named(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert not may_post_to(address, ())
    assert may_post_to(address, [ipaddress.ip_network(text)])


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_taken(text: str) -> None:
    assert may_post_to(ipaddress.ip_address(text), ())


def test_an_ipv4_network_that_is_named_is_meant_in_ipv6_too() -> None:
    assert may_post_to(ipaddress.ip_address("::ffff:10.1.2.3"), read_networks("10.1.0.0/16"))
    assert not may_post_to(ipaddress.ip_address("::ffff:10.2.2.3"), read_networks("10.1.0.0/16"))


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0x7f.1",
        "localhost",
        "a.localhost",
        "LOCALHOST.",
        "a.localhost.",
        "127.0.0.1.",
        "①②⑦.0.0.1",
        "127。0。0。1",
        "%31%32%37.0.0.1",
        "ⓛocalhost",
    ],
)
def test_other_ways_to_write_this_machine(host: str) -> None:
    assert str(written_address(host.lower())) == "127.0.0.1"


REFUSED_URLS = [
    ("http://example.com/x", "begins with http://"),
    ("https://127.0.0.1/x", "private address"),
    ("https://2130706433/x", "private address"),
    ("https://[::1]/x", "private address"),
    ("https://[::ffff:10.0.0.1]/x", "private address"),
    ("https://169.254.169.254/latest/meta-data", "private address"),
    ("https://localhost:9000/x", "private address"),
    ("ftp://example.com/x", "no http address"),
    ("https://user:hush5ecret@example.com/x", "user or password"),
    ("https://example.com/x#part", "fragment"),
    ("https://example.com/" + "x" * 3000, "characters"),
    ("https:///x", "no http address"),
    ("https://example.com:99999/x", "port"),
    ("https://example..com/x", "no name server"),
    (f"https://{'a' * 64}.example/x", "no name server"),
    (f"https://{'a.' * 130}example/x", "no name server"),
]


@pytest.mark.parametrize(("url", "words"), REFUSED_URLS)
def test_a_url_that_cannot_be_posted_to_is_refused_before_anything_is_stored(url: str, words: str) -> None:
    settings = load_settings(_env_file=None)
    with pytest.raises(UserError) as refused:
        endpoint_option(url, None, settings)
    said = f"{refused.value.message} {refused.value.remedy}"
    assert words.replace("no http", "not an http") in said
    assert "hush5ecret" not in said
    assert refused.value.exit_code == 2


def test_networks_that_are_named_allow_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYHOOK_RELAY_PRIVATE_NETWORKS", "127.0.0.0/8, 10.1.2.3")
    settings = load_settings(_env_file=None)
    assert refusal_of("http://127.0.0.1:9000/x", settings) is None
    assert refusal_of("https://10.1.2.3/x", settings) is None
    assert refusal_of("https://10.1.2.4/x", settings) is not None


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"hush5ecret", "begin with whsec_"), (b"whsec_hush5ecret!", "base64"), (b"x" * 5000, "more than")],
)
def test_a_secret_that_cannot_be_used_is_refused_and_not_quoted(
    content: bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        endpoint_option("https://example.com/x", path, load_settings(_env_file=None))
    assert words in refused.value.message
    assert "hush5ecret" not in refused.value.message


async def posted(url: str, *, allowed: str = "") -> Answered:
    async with RelayClient(allowed=read_networks(allowed), outbound=Outbound(), timeout_s=60) as client:
        return await client.post(url, {"x": "y"}, b"{}")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
async def test_no_connection_is_made_to_this_machine_however_it_is_written(host: str) -> None:
    async with receiving() as receiver:
        answered = await posted(receiver.url.replace("127.0.0.1", host))
        # Some spellings are no URL to begin with.
        assert answered.error in (REFUSED, "InvalidUrlClientError")
        assert receiver.got == []


async def test_http_goes_to_named_networks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _always("8.8.8.8"))
    assert (await posted("http://receiver.example/x")).error == REFUSED_PLAIN


def _always(address: str) -> Any:
    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    return resolve


async def test_a_name_that_turns_to_this_machine_after_it_was_looked_at_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding: public when it is submitted, this machine when it is connected to."""
    async with receiving() as receiver:
        url = receiver.url.replace("http://127.0.0.1", "https://rebinding.example")
        monkeypatch.setattr(socket, "getaddrinfo", _always("93.184.216.34"))
        assert refusal_of(url, load_settings(_env_file=None)) is None
        monkeypatch.setattr(socket, "getaddrinfo", _always("127.0.0.1"))
        assert (await posted(url)).error == REFUSED
        assert receiver.got == []


async def test_what_is_named_is_posted_to() -> None:
    async with receiving() as receiver:
        assert (await posted(receiver.url, allowed="127.0.0.1")).status == 204


async def test_behind_a_proxy_an_address_is_refused_before_the_proxy_is_asked() -> None:
    outbound = Outbound(https_proxy="http://127.0.0.1:9")
    async with RelayClient(allowed=(), outbound=outbound, timeout_s=60) as client:
        assert (await client.post("https://169.254.169.254/x", {}, b"{}")).error == REFUSED
        assert (await client.post("https://receiver.example/x", {}, b"{}")).error != REFUSED

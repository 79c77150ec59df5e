"""REDIS_URL as services and people write it."""

from pathlib import Path
from typing import Any

import pytest

from app.address import AddressError, read_redis_address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"host": "localhost", "port": 6379, "db": 0, "password": None}),
        ("redis://h:6380/3", {"host": "h", "port": 6380, "db": 3}),
        ("redis://h?db=4", {"db": 4}),
        ("redis://:pa#ss/w@o?rd%@h:1/2", {"password": "pa#ss/w@o?rd%", "host": "h", "port": 1, "db": 2}),
        ("redis://:pa%23ss@h", {"password": "pa#ss"}),
        ("redis://tally:p@h", {"username": "tally", "password": "p"}),
        ("redis://h?username=tally&password=p", {"username": "tally", "password": "p"}),
        ("redis://default@h", {"username": "default", "password": None}),
        ("redis://[::1]:6379", {"host": "::1"}),
        ("valkey://h", {"host": "h"}),
        ("unix:///tmp/redis.sock?db=2", {"path": "/tmp/redis.sock", "db": 2}),
        ("unix://:p@/tmp/redis.sock", {"path": "/tmp/redis.sock", "password": "p"}),
        ("redis+socket:///tmp/redis.sock", {"path": "/tmp/redis.sock"}),
        ("rediss://:p@h:6379", {"ssl_cert_reqs": "required", "ssl_check_hostname": True}),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", {"ssl_cert_reqs": "none", "ssl_check_hostname": False}),
        ("rediss://h?ssl_cert_reqs=none&ssl_check_hostname=true", {"ssl_check_hostname": False}),
        ("rediss://h?ssl_check_hostname=false", {"ssl_cert_reqs": "required", "ssl_check_hostname": False}),
        ("redis://h?protocol=3&client_name=t", {"protocol": 3, "client_name": "t"}),
        ("redis://default:p@redis.railway.internal:6379?family=0", {"host": "redis.railway.internal"}),
    ],
)
def test_f23_urls_as_services_hand_them_out(url: str, expected: dict[str, Any]) -> None:
    found = read_redis_address(url)
    assert {name: found.arguments[name] for name in expected} == expected
    assert (found.sentinels, found.tls) == ((), url.startswith("rediss"))


def test_f23_sentinels_are_named_as_elsewhere() -> None:
    found = read_redis_address("redis+sentinel://u:p@a,b:1,[::1]:2/main/3?sentinel_password=q")
    assert found.sentinels == (("a", 26379), ("b", 1), ("::1", 2))
    assert (found.master, found.arguments["db"], found.arguments["username"]) == ("main", 3, "u")
    assert (found.arguments["password"], found.sentinel_arguments) == ("p", {"password": "q"})
    secure = read_redis_address("rediss+sentinel://a/main?ssl_cert_reqs=none")
    assert (secure.tls, secure.sentinel_arguments["ssl"], secure.arguments["db"]) == (True, True, 0)
    assert read_redis_address("sentinel://a?service_name=main").master == "main"


def test_f23_certificates_of_a_private_ca(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("-")
    assert read_redis_address(f"rediss://h?ssl_ca_certs={pem}").arguments["ssl_ca_certs"] == str(pem)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "is not a URL"),
        ("hush@h:6379", "is not a URL"),
        ("http://h", "'http://', which is not Redis's"),
        ("redis+cluster://h", "Redis Cluster is not supported"),
        ("rediscluster://h", "Redis Cluster is not supported"),
        ("redis://a,b", "Redis Cluster is not supported"),
        ("redis://hush@h", "user and no password"),
        ("redis://hu#sh", "# where a host belongs"),
        ("redis://:hush#1", "# where a host belongs"),
        ("redis://h:hush/1", "port that is not a number"),
        ("redis://h/hush", "database that is not a number"),
        ("redis://h?db=hush", "database that is not a number"),
        ("redis://h?socket_timeout=1", "TALLYHOOK_REDIS_TIMEOUT_S"),
        ("redis://h?max_connections=1", "TALLYHOOK_REDIS_TIMEOUT_S"),
        ("redis://h?decode_responses=true", "unknown option"),
        ("redis://h?ssl_cert_reqs=none", "rediss://"),
        ("rediss://h?ssl_cert_reqs=perhaps", "one of none"),
        ("rediss://h?ssl_ca_certs=/no/such.pem", "no such file"),
        ("rediss://h?ssl_keyfile=/etc/passwd", "ssl_keyfile without"),
        ("unix://", "names no file"),
        ("unix://tmp/redis.sock", "names no file"),
        ("unix:///tmp/x?ssl_cert_reqs=none", "takes none"),
        ("redis+sentinel://a,b", "no master"),
        ("redis+sentinel:///main", "no sentinel"),
        ("redis://h?sentinel_password=hush", "Sentinel"),
        ("redis://h?protocol=4", "one of 2, 3"),
        ("redis:// h", "a blank where a host belongs"),
        ("redis://h\u200b:1", "a blank where a host belongs"),
        ("redis://h?ssl=true", "write rediss:// for TLS"),
        ("redis://:hush@h/0#1", "# behind its host"),
        ("redis-sentinel://h:26379?sentinelMasterId=m", "service_name="),
        ("redis://h/0?hush@", "without a value"),
        ("redis://h?hu sh=1", "unknown option after"),
    ],
)
def test_f23_what_is_wrong_is_reported_and_no_secret(url: str, words: str) -> None:
    with pytest.raises(AddressError) as caught:
        read_redis_address(url)
    assert words in str(caught.value)
    assert "hu" not in str(caught.value).replace("sush", "")


def test_nothing_that_is_kept_shows_a_password() -> None:
    found = read_redis_address("redis+sentinel://:hush@a/m?sentinel_password=hush")
    assert "hush" not in repr(found)
    assert found.display == "redis+sentinel://***@a/m"

"""Addresses of object storage."""

from pathlib import Path

import pytest

from app.address import AddressError, ObjectsAddress, read_objects_address


@pytest.mark.parametrize(
    ("text", "kind", "bucket", "prefix"),
    [
        ("s3://bucket/a/b/", "s3", "bucket", "a/b"),
        ("s3a://bucket", "s3", "bucket", ""),
        ("gs://my.bucket_1/x", "gs", "my.bucket_1", "x"),
        ("az://container/x", "az", "container", "x"),
        ("file:///var/lib/x%20y", "file", "", "/var/lib/x y"),
        ("/var/lib/x", "file", "", "/var/lib/x"),
        ("out", "file", "", str(Path("out").absolute())),
    ],
)
def test_each_kind_is_read(text: str, kind: str, bucket: str, prefix: str) -> None:
    assert read_objects_address(text) == ObjectsAddress(kind, bucket, prefix)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a folder, s3://BUCKET"),
        ("s3://KEYID:SECRET@bucket/x", "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket/x?endpoint=SECRET", "AWS_ENDPOINT_URL"),
        ("s3://bucket/x#SECRET", "AWS_REGION"),
        ("ftp://host/SECRET", "names no storage"),
        ("s3:/bucket/SECRET", "names no bucket"),
        ("s3:///SECRET", "names no bucket"),
        ("s3://bucket/../SECRET", "without"),
        ("file://host/SECRET", "another machine"),
        ("~nobody-of-this-name/SECRET", "whole path"),
    ],
)
def test_a_wrong_address_is_refused_with_a_remedy_and_without_quoting_it(text: str, words: str) -> None:
    with pytest.raises(AddressError) as refused:
        read_objects_address(text)
    assert words in str(refused.value)
    assert "SECRET" not in str(refused.value).replace("AWS_SECRET_ACCESS_KEY", "")


def test_an_address_is_shown_as_it_is_meant() -> None:
    assert read_objects_address("s3a://bucket/").display == "s3://bucket"
    assert read_objects_address("az://one/p/").display == "az://one/p"
    assert read_objects_address("/tmp/x").display == "/tmp/x"

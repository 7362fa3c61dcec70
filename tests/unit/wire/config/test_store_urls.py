"""URLs of what is shared from object stores and web servers."""

from __future__ import annotations

import pytest

from msd.wire.config.store_urls import StoreUrl
from msd.wire.errors import UsageError


@pytest.mark.parametrize(
    ("text", "url", "name", "is_folder"),
    [
        ("s3://films", StoreUrl("s3", "films", ""), "films", True),
        ("s3://films/", StoreUrl("s3", "films", ""), "films", True),
        ("S3://films/new/", StoreUrl("s3", "films", "new/"), "new", True),
        ("gs://films/new/a b.mkv", StoreUrl("gs", "films", "new/a b.mkv"), "a b.mkv", False),
        ("az://films/100%20", StoreUrl("az", "films", "100%20"), "100%20", False),
        ("https://example.com:8443/a%20b/c.iso", StoreUrl("https", "example.com:8443", "a b/c.iso"), "c.iso", False),
        ("http://[::1]:80/c", StoreUrl("http", "[::1]:80", "c"), "c", False),
    ],
)
def test_a_url_is_parsed(text: str, url: StoreUrl, name: str, is_folder: bool) -> None:
    parsed = StoreUrl.parse(text)
    assert (parsed, parsed.name, parsed.is_folder) == (url, name, is_folder)
    assert StoreUrl.parse(str(parsed)) == parsed or url.scheme == "https"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("s3://", "must be s3://BUCKET/PREFIX"),
        ("s3:///a", "must be s3://BUCKET/PREFIX"),
        ("s3://key@films/a", "must be s3://BUCKET/PREFIX"),
        ("s3://films/a//b", "keys with empty parts"),
        ("s3://films/../b", "keys with empty parts"),
        ("ftp://example.com/a", "expected a path, or one of s3://, gs://, az://, http://, https://"),
        ("https://example.com", "a web server has no list of its files"),
        ("https://example.com/folder/", "a web server has no list of its files"),
        ("https:///a", "without user, query and fragment"),
    ],
)
def test_what_is_no_such_url_is_an_error(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        StoreUrl.parse(text)


@pytest.mark.parametrize("text", ["https://me:secret@example.com/a", "https://example.com/a?signature=secret"])
def test_secrets_in_a_url_are_not_shown(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        StoreUrl.parse(text)
    assert "secret" not in str(raised.value)

"""An address is taken apart without a secret of it going anywhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.planning.secrecy import command_line, redacted
from harness.records.paths import checked_name
from harness.storing.places import located, open_store, run_folder
from harness.storing.url import parse

SECRET = st.text(alphabet="abcdefghijkXYZ0123456789+_-", min_size=6, max_size=24)


@pytest.mark.parametrize(
    ("text", "shown", "address"),
    [
        ("s3://bucket/lab/", "s3://bucket/lab", "s3://bucket/lab"),
        ("s3://KEYID:SECRET@bucket/lab", "s3://bucket/lab", "s3://bucket/lab"),
        ("sftp://alice:SECRET@host:22/srv/runs", "sftp://host:22/srv/runs", "sftp://alice:SECRET@host:22/srv/runs"),
        ("abfs://container@account.net/x?sas_token=SECRET", "abfs://container@account.net/x", None),
        ("https://SECRET@host/x", "https://host/x", "https://SECRET@host/x"),
        ("memory://a/b", "memory://a/b", "memory://a/b"),
        ("file:///srv/runs", "file:///srv/runs", "file:///srv/runs"),
    ],
)
def test_addresses(text: str, shown: str, address: str | None) -> None:
    url = parse(text)
    assert url.shown == shown
    assert url.address == (address or shown)
    if "SECRET" in text:
        assert "SECRET" not in url.redact(f"cannot open {text}: SECRET refused")
        assert "SECRET" not in redacted(f"--store {text}")


def test_keys_of_s3_are_options_of_the_filesystem() -> None:
    url = parse("s3://KEY:a%2Fb@bucket?endpoint_url=http://h:9000&anon=false")
    assert url.options == {"key": "KEY", "secret": "a/b", "endpoint_url": "http://h:9000", "anon": False}


@given(SECRET, SECRET, SECRET)
def test_no_secret_survives(user: str, password: str, token: str) -> None:
    for text in (f"s3://{user}:{password}@bucket/x?token={token}", f"sftp://{user}:{password}@host/x"):
        url = parse(text)
        for secret in (password, token) if text.startswith("s3") else (password,):
            assert secret not in url.shown
            assert secret not in redacted(text)
            assert secret not in url.redact(f"denied: {text} and {secret}")


def test_the_key_of_a_mirror_depends_on_the_place_and_not_on_the_password() -> None:
    keys = [
        parse(text).key
        for text in (
            "sftp://a:one@host/x",
            "sftp://a:two@host/x?timeout=5",
            "sftp://b@host/x",
            "sftp://a@host/y",
            "sftp://a@other/x",
        )
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
    assert parse("s3://b/x").key != parse("s3://b/x?endpoint_url=http://h").key


def test_a_slash_in_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError) as caught:
        parse("s3://KEY:SEC/RET@bucket/x")
    assert "SEC" not in str(caught.value)
    assert "SEC" not in redacted("s3://KEY:SEC/RET@bucket/x")
    assert parse("sftp://host:22/mail@home").shown == "sftp://host:22/mail@home"


def test_the_command_line_of_a_record_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["harness", "run", "a.yaml", "--store=s3://K:SECRET@b/x?token=TOKEN"])
    assert command_line() == ["harness", "run", "a.yaml", "--store=s3://b/x"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", ".hidden", "a\\b", "a\nb", "index", "baselines", "x" * 300]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UsageError):
        checked_name(name)


@pytest.mark.parametrize("text", ["://x", "9://x", "s 3://x"])
def test_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="not the address"):
        open_store(text)


def test_an_unknown_protocol_is_named_without_its_secrets() -> None:
    pytest.importorskip("fsspec", reason="stores behind URLs need fsspec")
    with pytest.raises(UsageError) as caught:
        open_store("gopher://me:SECRET@host/x")
    assert "SECRET" not in str(caught.value)


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"joule-harness\[stores\]"):
        open_store("memory://x")


def test_a_path_stays_a_path(tmp_path: Path) -> None:
    assert run_folder(tmp_path / "run") == tmp_path / "run"
    assert located(str(tmp_path / "run"))[0].folder == tmp_path
    with pytest.raises(UsageError, match="does not name a run"):
        located("s3://bucket")

"""Signatures on commands: canonical form, keys, rotation, and every way to be refused."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus_agent.config.kafka import SigningConfig
from otus_agent.kafka.canonical import canonical
from otus_agent.kafka.errors import SignatureInvalid, SignatureMissing
from otus_agent.kafka.signing import (
    HmacSigner,
    Verifier,
    generate_keypair,
    load_signer,
    sign,
    signed_octets,
)
from otus_sdk.errors import ConfigurationInvalid

ENVELOPE = {
    "version": 1,
    "target": "*",
    "command": "task.delete",
    "request_id": "r-1",
    "timestamp": "2026-01-01T00:00:00.000Z",
    "params": {"id": "täsk", "timeout": 1.5},
}
SECRET = b"0123456789abcdef0123456789abcdef"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # RFC 8785 appendix B.
        (0.0, "0"),
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (295147905179352830000.0, "295147905179352830000"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (1e23, "1e+23"),
        (999999999999999700000.0, "999999999999999700000"),
        (1e21, "1e+21"),
        (9.999999999999997e-7, "9.999999999999997e-7"),
        (0.000001, "0.000001"),
        (333333333.33333325, "333333333.33333325"),
        (0.002, "0.002"),
        # Section 3.2.2 and 3.2.3.
        ({"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "ö": 7},
         '{"\\r":2,"1":4,"\x80":6,"ö":7,"€":1,"\U0001f600":5,"\ufb33":3}'),
        ('€$\u000f\nA\'B"\\\\"/', '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'),
        ([56, {"d": True, "10": None, "1": []}], '[56,{"1":[],"10":null,"d":true}]'),
    ],
)  # fmt: skip
def test_canonical_form_is_rfc_8785(value: object, text: str) -> None:
    """The RFC's own examples come out as it prints them."""
    assert canonical(value).decode() == text


@given(json_values)
def test_canonical_form_survives_a_round_trip(value: object) -> None:
    """Reading the form and writing it again gives the same octets, whatever the value."""
    try:
        octets = canonical(value)
    except ValueError:
        return  # lone surrogates
    assert canonical(json.loads(octets)) == octets


@pytest.mark.parametrize(
    "value", [2**53 + 1, 10**400, float("nan"), float("inf"), "\ud800", {1: 2}, b"x"]
)
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    """Values that parsers read differently can't be signed."""
    with pytest.raises(ValueError):
        canonical(value)


def test_the_documented_vector() -> None:
    """The example of docs/reference/fleet-protocol.md, octet by octet."""
    assert signed_octets({**ENVELOPE, "signature": {"key": "k"}}) == (
        b'otus-command-v1\n{"command":"task.delete","params":{"id":"t\xc3\xa4sk","timeout":1.5},'
        b'"request_id":"r-1","target":"*","timestamp":"2026-01-01T00:00:00.000Z","version":1}'
    )
    signed = sign(ENVELOPE, HmacSigner("example", SECRET))
    assert signed["signature"] == {
        "key": "example",
        "algorithm": "hmac-sha256",
        "value": "LKoVKZ0Mj2ujBe+3lU57HD7FmZmtjVZBmqBf3dIoLss=",
    }


@pytest.fixture
def ed25519(tmp_path):
    private, public = generate_keypair()
    path = tmp_path / "ops.pem"
    path.write_bytes(private)
    return load_signer(path), public


def verifier(*keys: dict, **settings: object) -> Verifier:
    return Verifier(SigningConfig.model_validate({"keys": list(keys), **settings}))


def hmac_key(name: str = "shared", **more: object) -> dict:
    secret = base64.b64encode(SECRET).decode()
    return {"id": name, "algorithm": "hmac-sha256", "secret": secret, **more}


def test_a_signature_by_a_trusted_key_holds(ed25519) -> None:
    """Both algorithms, with several keys trusted side by side."""
    signer, public = ed25519
    believes = verifier({"id": "ops", "public_key": public}, hmac_key())
    assert believes.verify(sign(ENVELOPE, signer)) == "ops"
    assert believes.verify(sign(ENVELOPE, HmacSigner("shared", SECRET))) == "shared"


def test_members_may_be_reordered_in_transit(ed25519) -> None:
    """The order of members and the spelling of JSON are not part of what is signed."""
    signer, public = ed25519
    signed = sign(ENVELOPE, signer)
    again = json.loads(json.dumps(dict(reversed(signed.items())), ensure_ascii=True, indent=2))
    assert verifier({"id": "ops", "public_key": public}).verify(again) == "ops"


@pytest.mark.parametrize("member", ["target", "command", "request_id", "timestamp", "params"])
def test_a_changed_member_breaks_the_signature(ed25519, member: str) -> None:
    """No member of the envelope can be changed after signing."""
    signer, public = ed25519
    signed = {**sign(ENVELOPE, signer), member: {"id": "other"} if member == "params" else "other"}
    with pytest.raises(SignatureInvalid, match="does not hold"):
        verifier({"id": "ops", "public_key": public}).verify(signed)


def test_an_added_task_breaks_the_signature(ed25519) -> None:
    """Nor can one be added."""
    signer, public = ed25519
    signed = {**sign(ENVELOPE, signer), "task": {"id": "x"}}
    with pytest.raises(SignatureInvalid):
        verifier({"id": "ops", "public_key": public}).verify(signed)


def test_unsigned_commands_are_refused_once_a_key_is_known(ed25519) -> None:
    """Trusting a key means wanting signatures, unless the operator says otherwise."""
    _, public = ed25519
    with pytest.raises(SignatureMissing):
        verifier({"id": "ops", "public_key": public}).verify(ENVELOPE)
    assert verifier(hmac_key(), require_signature=False).verify(ENVELOPE) == ""
    assert verifier().verify(ENVELOPE) == ""


@pytest.mark.parametrize(
    "signature",
    [
        "text",
        {},
        {"key": "shared"},
        {"key": "shared", "value": "!"},
        {"key": "shared", "value": 7},
        {"key": "shared", "value": ""},
        {"key": "shared", "value": base64.b64encode(b"\0" * 32).decode()},
        {"key": "nobody", "value": ""},
        {"key": ["shared"], "value": ""},
        {"key": "shared", "algorithm": "none", "value": ""},
    ],
)
def test_a_broken_signature_is_refused_even_where_none_is_needed(signature: object) -> None:
    """A signature that is there has to hold."""
    with pytest.raises(SignatureInvalid):
        verifier(hmac_key(), require_signature=False).verify({**ENVELOPE, "signature": signature})


def test_a_public_key_can_not_be_used_as_a_secret(ed25519) -> None:
    """The key decides on the algorithm: the public key's octets sign nothing."""
    _, public = ed25519
    forged = sign(ENVELOPE, HmacSigner("ops", base64.b64decode(public)))
    with pytest.raises(SignatureInvalid, match="is for ed25519"):
        verifier({"id": "ops", "public_key": public}).verify(forged)


def test_rotation_by_dates() -> None:
    """A key is believed from not_before to not_after and at no other time."""
    now = datetime(2026, 6, 1, tzinfo=UTC)
    day = timedelta(days=1)
    believes = verifier(
        hmac_key(not_before=(now - day).isoformat(), not_after=(now + day).isoformat())
    )
    signed = sign(ENVELOPE, HmacSigner("shared", SECRET))
    assert believes.verify(signed, now) == "shared"
    with pytest.raises(SignatureInvalid, match="not valid yet"):
        believes.verify(signed, now - 2 * day)
    with pytest.raises(SignatureInvalid, match="not valid any more"):
        believes.verify(signed, now + 2 * day)


def test_a_key_for_some_commands() -> None:
    """A key may be trusted for reading alone."""
    believes = verifier(hmac_key(commands=["*.status", "status"]))
    signer = HmacSigner("shared", SECRET)
    assert believes.verify(sign({**ENVELOPE, "command": "task.status"}, signer)) == "shared"
    with pytest.raises(SignatureInvalid, match="may not sign"):
        believes.verify(sign(ENVELOPE, signer))


@pytest.mark.parametrize(
    "key",
    [
        {"id": "k", "public_key": "AAAA"},
        {"id": "k", "public_key_file": "/nonexistent"},
        {"id": "k", "algorithm": "hmac-sha256", "secret": base64.b64encode(b"short").decode()},
        {"id": "k", "algorithm": "hmac-sha256", "secret": "not base64"},
    ],
)
def test_a_key_that_can_not_be_read_is_a_configuration_error(key: dict) -> None:
    """The error names the key."""
    with pytest.raises(ConfigurationInvalid, match=r"kafka\.signing\.keys: k"):
        verifier(key)


@pytest.mark.parametrize(
    "config",
    [
        {"require_signature": True},
        {"keys": [hmac_key(), hmac_key()]},
        {"keys": [{"id": "k"}]},
        {"keys": [{"id": "k", "public_key": "a", "public_key_file": "b"}]},
        {"keys": [{"id": "k", "public_key": "a", "secret": "b"}]},
        {"keys": [hmac_key(not_after="2026-01-01T00:00:00")]},
    ],
)
def test_contradictions_in_the_configuration_are_errors(config: dict) -> None:
    """What can't be meant is refused when the file is read."""
    with pytest.raises(ValueError):
        SigningConfig.model_validate(config)


def test_files_that_are_no_key(tmp_path) -> None:
    """The signer's error names the file."""
    path = tmp_path / "bad.pem"
    for content in (b"", b"-----BEGIN PRIVATE KEY-----\nx", b"c2hvcnQ="):
        path.write_bytes(content)
        with pytest.raises(ConfigurationInvalid, match=r"bad\.pem"):
            load_signer(path)

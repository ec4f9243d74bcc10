"""Signatures on commands: who signs, who is believed.

What is signed: the octets `otus-command-v1` and a line feed, then the canonical
form (RFC 8785) of the envelope without its `signature` member.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from otus_agent.config.kafka import SigningConfig, TrustedKey, octets
from otus_agent.kafka.canonical import canonical
from otus_agent.kafka.errors import SignatureInvalid, SignatureMissing
from otus_sdk.errors import ConfigurationInvalid

DOMAIN = b"otus-command-v1\n"
MIN_SECRET_OCTETS = 16


def signed_octets(envelope: Mapping[str, Any]) -> bytes:
    """What a signature of the envelope is over.

    Raises:
        ValueError: the envelope has no canonical form.
    """
    return DOMAIN + canonical({key: envelope[key] for key in envelope if key != "signature"})


class Signer(Protocol):
    """A key that signs."""

    key_id: str
    algorithm: str

    def sign(self, data: bytes) -> bytes:
        """The signature of data."""


class Ed25519Signer:
    """Signs with an Ed25519 private key."""

    algorithm = "ed25519"

    def __init__(self, key_id: str, key: Ed25519PrivateKey) -> None:
        self.key_id = key_id
        self._key = key

    def sign(self, data: bytes) -> bytes:
        """64 octets."""
        return self._key.sign(data)


class HmacSigner:
    """Signs with HMAC-SHA-256."""

    algorithm = "hmac-sha256"

    def __init__(self, key_id: str, secret: bytes) -> None:
        self.key_id = key_id
        self._secret = secret

    def sign(self, data: bytes) -> bytes:
        """32 octets."""
        return hmac.digest(self._secret, data, "sha256")


def load_signer(path: str | Path, key_id: str | None = None) -> Signer:
    """Reads a key that signs.

    Args:
        path: a PEM file with an Ed25519 private key, or a file with an HMAC secret
            as `octets` reads it.
        key_id: what the agents call the key; by default the file's name without
            its suffix.

    Raises:
        ConfigurationInvalid: the file can't be read or holds neither.
    """
    path = Path(path)
    name = key_id or path.stem
    try:
        content = path.read_bytes()
        if b"-----BEGIN" not in content:
            return HmacSigner(name, _secret(content.decode("ascii").strip()))
        key = serialization.load_pem_private_key(content, None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationInvalid(f"{path}: no key to sign with: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationInvalid(f"{path}: not an Ed25519 private key")
    return Ed25519Signer(name, key)


def sign(envelope: Mapping[str, Any], signer: Signer) -> dict[str, Any]:
    """The envelope with its `signature` member."""
    signature = {
        "key": signer.key_id,
        "algorithm": signer.algorithm,
        "value": base64.b64encode(signer.sign(signed_octets(envelope))).decode("ascii"),
    }
    return {**envelope, "signature": signature}


def generate_keypair() -> tuple[bytes, str]:
    """A new Ed25519 key.

    Returns:
        The private key as PEM, and the public key as base64 for the agents'
        configuration.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private, base64.b64encode(key.public_key().public_bytes_raw()).decode("ascii")


class Verifier:
    """Believes the keys of one `SigningConfig`. Reads key files once, when made.

    Raises:
        ConfigurationInvalid: a key can't be read.
    """

    def __init__(self, config: SigningConfig) -> None:
        self.required = config.required
        self._keys = {key.id: (key, _check_of(key)) for key in config.keys}

    def verify(self, envelope: Mapping[str, Any], now: datetime | None = None) -> str:
        """Checks an envelope's signature.

        Returns:
            The id of the key that signed; empty where there is no signature and
            none is needed.

        Raises:
            SignatureMissing: there is none.
            SignatureInvalid: it does not hold. A signature that is there is always
                checked, needed or not.
        """
        signature = envelope.get("signature")
        if signature is None:
            if self.required:
                raise SignatureMissing("this agent takes signed commands only")
            return ""
        if not isinstance(signature, Mapping):
            raise SignatureInvalid("signature: must be an object")
        key_id = signature.get("key")
        known = self._keys.get(key_id) if isinstance(key_id, str) else None
        if known is None:
            raise SignatureInvalid(f"no trusted key {str(key_id)[:64]!r}")
        key, check = known
        self._check_use(key, signature, envelope, now or datetime.now(UTC))
        try:
            value = base64.b64decode(signature.get("value", ""), validate=True)
            holds = check(value, signed_octets(envelope))
        except (ValueError, TypeError, binascii.Error):
            holds = False
        if not holds:
            raise SignatureInvalid(f"the signature by {key.id!r} does not hold")
        return key.id

    @staticmethod
    def _check_use(
        key: TrustedKey, signature: Mapping[str, Any], envelope: Mapping[str, Any], now: datetime
    ) -> None:
        # The algorithm is the key's, never the message's to choose.
        if signature.get("algorithm", key.algorithm) != key.algorithm:
            raise SignatureInvalid(f"key {key.id!r} is for {key.algorithm}")
        if key.not_before is not None and now < key.not_before:
            raise SignatureInvalid(f"key {key.id!r} is not valid yet")
        if key.not_after is not None and now > key.not_after:
            raise SignatureInvalid(f"key {key.id!r} is not valid any more")
        command = str(envelope.get("command", ""))
        if not any(fnmatch.fnmatchcase(command, pattern) for pattern in key.commands):
            raise SignatureInvalid(f"key {key.id!r} may not sign {command[:64]!r}")


class _Check(Protocol):
    def __call__(self, signature: bytes, data: bytes, /) -> bool: ...


def _check_of(key: TrustedKey) -> _Check:
    where = f"kafka.signing.keys: {key.id}"
    try:
        if key.algorithm == "ed25519":
            return _ed25519_check(_public_key(key))
        return _hmac_check(_secret(_given(key.secret_file, key.secret)))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationInvalid(f"{where}: {error}") from error


def _given(path: str | None, inline: Any) -> str:
    if path is not None:
        return Path(path).read_text(encoding="ascii").strip()
    return str(inline.get_secret_value() if hasattr(inline, "get_secret_value") else inline)


def _public_key(key: TrustedKey) -> Ed25519PublicKey:
    text = _given(key.public_key_file, key.public_key)
    if "-----BEGIN" not in text:
        return Ed25519PublicKey.from_public_bytes(octets(text))
    public = serialization.load_pem_public_key(text.encode("ascii"))
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("not an Ed25519 public key")
    return public


def _secret(text: str) -> bytes:
    secret = octets(text)
    if len(secret) < MIN_SECRET_OCTETS:
        raise ValueError(f"an HMAC secret needs at least {MIN_SECRET_OCTETS} octets")
    return secret


def _ed25519_check(public: Ed25519PublicKey) -> _Check:
    def check(signature: bytes, data: bytes, /) -> bool:
        try:
            public.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    return check


def _hmac_check(secret: bytes) -> _Check:
    def check(signature: bytes, data: bytes, /) -> bool:
        return hmac.compare_digest(hmac.digest(secret, data, "sha256"), signature)

    return check


def digest(envelope: Mapping[str, Any]) -> str:
    """What tells one command from another: SHA-256 of what is signed, hex."""
    return hashlib.sha256(signed_octets(envelope)).hexdigest()

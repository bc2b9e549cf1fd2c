"""In-toto statements, and their signatures in DSSE envelopes.

Both formats are a few lines (github.com/in-toto/attestation, spec/v1/statement.md; github.com/secure-systems-lab/dsse),
and `cryptography`, which DVC installs too, makes the signatures. So a signed verdict needs no further package.
"""

import base64
import getpass
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprise.core.errors import UserError

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
except ModuleNotFoundError:
    expected = "`pip install --no-deps --require-hashes -r docker/cpu/sharing.txt`"
    raise UserError("not installed", key="cryptography", expected=expected) from None

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
KEYS = "a PEM file of an Ed25519 key, or of an ECDSA key on P-256"

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey


def statement(subjects: Mapping[str, str], predicate_type: str, predicate: Mapping[str, Any]) -> dict[str, Any]:
    """Return an in-toto statement about files.

    Args:
        subjects: SHA-256 by name.
        predicate_type: URI.
        predicate: what is stated, as JSON.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }


@dataclass(frozen=True)
class SignedStatement:
    """A statement from an envelope.

    Attributes:
        content: the statement.
        fingerprint: SHA-256 of the public key that it names.
        holds: whether that key signed it.
    """

    content: dict[str, Any]
    fingerprint: str
    holds: bool


def read_private_key(file: Path) -> PrivateKey:
    """Read a key, and ask on the terminal for its passphrase if it has one.

    Raises:
        UserError: it cannot be read, or is of another kind.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", file=file, expected=KEYS) from None
    try:
        try:
            key = serialization.load_pem_private_key(content, password=None)
        except TypeError:  # it is encrypted
            passphrase = getpass.getpass(f"Passphrase of {file}: ").encode()
            key = serialization.load_pem_private_key(content, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm, EOFError):
        raise UserError("not a private key, or another passphrase", file=file, expected=KEYS) from None
    if not isinstance(key, PrivateKey) or not _is_supported(key.public_key()):
        raise UserError("another kind of key", file=file, expected=KEYS)
    return key


def read_public_key(content: bytes) -> PublicKey:
    """Read a public key from PEM.

    Raises:
        ValueError: it is not one, or of another kind.
    """
    try:
        key = serialization.load_pem_public_key(content)
    except UnsupportedAlgorithm as error:
        raise ValueError(error) from None
    if not isinstance(key, PublicKey) or not _is_supported(key):
        raise ValueError(f"expected {KEYS}")
    return key


def _is_supported(key: object) -> bool:
    return not isinstance(key, ec.EllipticCurvePublicKey) or isinstance(key.curve, ec.SECP256R1)


def public_pem(key: PublicKey) -> str:
    """Return a public key as PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def fingerprint(key: PublicKey) -> str:
    """Return the SHA-256 of a public key in DER: `openssl pkey -pubin -in KEY.pub -outform DER | sha256sum`."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def encode_for_signing(payload: bytes) -> bytes:
    """Return what DSSE signs: the lengths of type and payload too, so that no byte can move between them."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def sign(content: Mapping[str, Any], key: PrivateKey) -> dict[str, Any]:
    """Sign a statement; return its envelope."""
    payload = json.dumps(content, ensure_ascii=False, allow_nan=False, sort_keys=True).encode()
    message = encode_for_signing(payload)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
    else:
        signature = key.sign(message)
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": fingerprint(key.public_key()), "sig": base64.b64encode(signature).decode()}],
    }


def open_envelope(envelope: Mapping[str, Any]) -> SignedStatement:
    """Read the statement in an envelope, and check its signature by the key that the statement names.

    Raises:
        ValueError, LookupError, TypeError: it is not an envelope of a statement that names its key.
    """
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise ValueError("another type of payload")
    payload = base64.b64decode(envelope["payload"], validate=True)
    content = json.loads(payload)
    if content["_type"] != STATEMENT_TYPE:
        raise ValueError("not an in-toto statement")
    (signature,) = envelope["signatures"]
    key = read_public_key(content["predicate"]["verifier"]["publicKey"].encode())
    signed, message = base64.b64decode(signature["sig"], validate=True), encode_for_signing(payload)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signed, message, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signed, message)
    except InvalidSignature:
        return SignedStatement(content, fingerprint(key), holds=False)
    return SignedStatement(content, fingerprint(key), holds=signature["keyid"] == fingerprint(key))

"""Signed statements: other implementations of the standards accept them, and no byte can change."""

import base64
import datetime
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.test_result.v0.test_result_pb2 import TestResult as Predicate
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementProto
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from reprise.core.errors import UserError
from reprise.results.run import read_result
from reprise.results.verdict import Verdict
from reprise.sharing.record import Record
from reprise.sharing.statement import fingerprint, open_envelope, public_pem, read_private_key, sign
from reprise.sharing.verdict import verdict_statement
from synthetic_runs import files
from tiny import ROOT, tiny_recipe

NOW = datetime.datetime(2026, 11, 29, 18, 0, tzinfo=datetime.UTC)
VERDICTS = {"models/final": Verdict.EQUIVALENT, "data/raw": Verdict.IDENTICAL, "predictions": Verdict.EQUIVALENT}
KEYS = [ed25519.Ed25519PrivateKey.generate, lambda: ec.generate_private_key(ec.SECP256R1())]
RUN = read_result(files(tiny_recipe(), steps=10, rows=20).get, "test")


def pem(key: Any, passphrase: bytes = b"") -> bytes:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.fixture(params=KEYS, ids=["ed25519", "ecdsa"])
def key(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
def stated(record: Record, key: Any) -> dict[str, Any]:
    """The statement of an equivalent run."""
    return verdict_statement(record, VERDICTS, RUN, key.public_key(), NOW)


def test_the_statement_is_of_in_toto_with_its_predicate_for_test_results(
    stated: dict[str, Any], record: Record
) -> None:
    statement = ParseDict(stated, StatementProto())
    Statement.copy_from_pb(statement).validate()
    assert {subject.name: dict(subject.digest) for subject in statement.subject} == {
        name: {"sha256": record.files[name]} for name in record.model
    }
    result = ParseDict(stated["predicate"], Predicate(), ignore_unknown_fields=True)
    assert (result.result, list(result.passed_tests)) == ("WARNED", ["data/raw"])
    assert list(result.warned_tests) == ["models/final", "predictions"]
    assert result.configuration[0].digest["gitCommit"] == record.commit
    assert stated["predicate"]["verdicts"]["models/final"] == "equivalent"
    assert stated["predicate"]["environment"]["hardware"] == "cpu"


@pytest.mark.parametrize(
    ("verdict", "result"),
    [(Verdict.IDENTICAL, "PASSED"), (Verdict.DIFFERENT, "FAILED"), (Verdict.EQUIVALENT, "WARNED")],
)
def test_the_worst_verdict_is_the_result(record: Record, verdict: Verdict, result: str) -> None:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    verdicts = {"data/raw": Verdict.IDENTICAL, "models/final": verdict}
    assert verdict_statement(record, verdicts, RUN, key, NOW)["predicate"]["result"] == result


def test_another_implementation_of_dsse_accepts_the_signature(stated: dict[str, Any], key: Any) -> None:
    envelope = sign(stated, key)
    signer = fingerprint(key.public_key())
    scheme = "ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else "ecdsa-sha2-nistp256"
    other = SSlibKey.from_crypto(key.public_key(), keyid=signer, scheme=scheme)
    assert list(Envelope.from_dict(json.loads(json.dumps(envelope))).verify([other], 1)) == [signer]


def test_a_signature_holds_for_the_signed_bytes_alone(stated: dict[str, Any], key: Any) -> None:
    envelope = sign(stated, key)
    opened = open_envelope(envelope)
    assert (opened.holds, opened.fingerprint, opened.content) == (True, fingerprint(key.public_key()), stated)
    better = stated | {"predicate": stated["predicate"] | {"verdicts": {"models/final": "identical"}}}
    forged = envelope | {"payload": base64.b64encode(json.dumps(better).encode()).decode()}
    assert not open_envelope(forged).holds


def test_a_statement_that_names_the_key_of_another_does_not_hold(stated: dict[str, Any], key: Any) -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    assert not open_envelope(sign(stated, other)).holds
    assert stated["predicate"]["verifier"]["publicKey"] == public_pem(key.public_key())


@pytest.mark.parametrize(
    "change",
    [{"payloadType": "text/plain"}, {"payload": "!"}, {"payload": "e30="}, {"signatures": []}],
    ids=["type", "base64", "empty", "unsigned"],
)
def test_another_envelope_is_refused(stated: dict[str, Any], key: Any, change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, LookupError)):
        open_envelope(sign(stated, key) | change)


def test_a_key_is_read_with_its_passphrase(tmp_path: Any, key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.key"
    file.write_bytes(pem(key, b"open"))
    monkeypatch.setattr("getpass.getpass", lambda _: "open")
    assert fingerprint(read_private_key(file).public_key()) == fingerprint(key.public_key())
    monkeypatch.setattr("getpass.getpass", lambda _: "wrong")
    with pytest.raises(UserError) as refused:
        read_private_key(file)
    assert refused.value.file == str(file)


@pytest.mark.parametrize(
    "content",
    [
        b"not a key",
        pem(rsa.generate_private_key(65537, 2048)),
        pem(ec.generate_private_key(ec.SECP384R1())),
        public_pem(ed25519.Ed25519PrivateKey.generate().public_key()).encode(),
    ],
    ids=["text", "RSA", "another curve", "public"],
)
def test_other_keys_are_refused(tmp_path: Any, content: bytes) -> None:
    file = tmp_path / "mine.key"
    file.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_private_key(file)
    assert (refused.value.file, "Ed25519" in refused.value.expected) == (str(file), True)
    with pytest.raises(UserError):
        read_private_key(tmp_path / "absent.key")


def test_no_stage_imports_signatures_or_forms() -> None:
    stages = ("core", "data", "evaluate", "fetch", "modeling", "prepare", "results", "tasks", "train")
    importing = [
        str(file.relative_to(ROOT))
        for stage in stages
        for file in (ROOT / "src/reprise" / stage).rglob("*.py")
        if "reprise.sharing" in (text := file.read_text(encoding="utf-8")) or "import cryptography" in text
    ]
    assert importing == []

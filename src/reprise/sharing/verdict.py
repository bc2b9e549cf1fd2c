"""The statement of a verdict: in-toto's predicate for test results, with who rebuilt the model, where and when.

`passedTests` are outputs with the same bits, `warnedTests` those that rounding or the seed explain, `failedTests` the
others (github.com/in-toto/attestation, spec/predicates/test-result.md). Its other fields are extensions.
"""

import datetime
import platform
from collections.abc import Mapping
from typing import Any

from reprise.core.config import PARAMS
from reprise.results.run import RunResult
from reprise.results.verdict import Verdict
from reprise.sharing.record import Record
from reprise.sharing.slsa import source_uri
from reprise.sharing.statement import PublicKey, fingerprint, public_pem, statement

PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
# The keys of the provenance of the run that checked the model: on what it ran.
RAN_ON = {
    "devices": "devices", "cpuCapability": "cpu_capability", "driver": "driver", "image": "image",
    "hardware": "environment.hardware", "machine": "environment.machine", "processes": "processes",
    "threads": "threads",
}  # fmt: skip


def verdict_statement(
    record: Record, verdicts: Mapping[str, Verdict], reproduced: RunResult, key: PublicKey, now: datetime.datetime
) -> dict[str, Any]:
    """State the verdict of each output of a run, about the files of its model.

    Args:
        record: of the exported folder.
        verdicts: by output.
        reproduced: the run that checked it.
        key: of whoever states it.
        now: when.
    """
    worst, commit = max(verdicts.values()), record.commit
    locks = {
        lock: reproduced.provenance.get(f"environment.locks.{lock}") for lock in record.run["environment"]["locks"]
    }
    outcomes = {
        "passedTests": (Verdict.IDENTICAL,),
        "warnedTests": (Verdict.EQUIVALENT, Verdict.WITHIN_SEED_NOISE),
        "failedTests": (Verdict.DIFFERENT,),
    }
    predicate = {
        "result": {Verdict.IDENTICAL: "PASSED", Verdict.DIFFERENT: "FAILED"}.get(worst, "WARNED"),
        "configuration": [
            {"name": "source", "uri": source_uri(record), "digest": {"gitCommit": commit}},
            {"name": PARAMS.name, "digest": {"sha256": record.files[PARAMS.name]}},
            *({"name": name, "digest": {"sha256": digest}} for name, digest in locks.items() if digest),
        ],
        **{name: [path for path in verdicts if verdicts[path] in grades] for name, grades in outcomes.items()},
        "verdicts": {path: str(verdict) for path, verdict in verdicts.items()},
        "commit": commit,
        "environment": {
            **{name: reproduced.provenance.get(key) for name, key in RAN_ON.items()},
            "python": platform.python_version(),
            "libc": " ".join(platform.libc_ver()),
        },
        "verifier": {"fingerprint": fingerprint(key), "publicKey": public_pem(key)},
        "timeVerified": now.isoformat(timespec="seconds"),
    }  # fmt: skip
    return statement({name: record.files[name] for name in record.model}, PREDICATE_TYPE, predicate)

"""RO-Crate of a run: profile Workflow Run Crate 0.5 (w3id.org/ro/wfrun/workflow/0.5) on RO-Crate 1.1.

The workflow is dvc.lock, which has the command, the inputs and the outputs of every stage that ran.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from reprise.core.config import PARAMS
from reprise.core.dvc_lock import LOCK
from reprise.sharing.record import CARD, CRATE, Record, digest_name
from reprise.sharing.slsa import source_uri

RO_CRATE = "https://w3id.org/ro/crate/1.1"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
DVC = "https://dvc.org"
FORMATS = {".json": "application/json", ".yaml": "application/yaml", ".txt": "text/plain"}


def ro_crate(record: Record, name: str, session: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a run: workflow, recipe, data and the model that it made.

    Args:
        record: of the exported folder.
        name: of the model.
        session: the last session in metrics/provenance.json.
    """
    others = [file for file in record.files if file not in (*record.model, LOCK.name)]
    data = {f"#{path}": (path, digest) for path, digest in record.run["data"].items()}
    files = [
        {
            "@id": file,
            "@type": "File",
            "name": file,
            "sha256": record.files[file],
            "encodingFormat": FORMATS.get(PurePosixPath(file).suffix, "application/octet-stream"),
        }
        for file in (*record.model, *others)
    ]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": name,
        "description": f"The model {name}, and the run of {source_uri(record)} that made it.",
        "datePublished": session["started"],
        "license": "The licenses of the pretrained model and of the data apply.",
        "conformsTo": refer(*PROFILES),
        "hasPart": refer(LOCK.name, str(CARD), *(file["@id"] for file in files)),
        "mainEntity": {"@id": LOCK.name},
        "mentions": {"@id": "#run"},
    }
    workflow = {
        "@id": LOCK.name,
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "name": f"{name}: the stages that ran",
        "programmingLanguage": {"@id": DVC},
        "encodingFormat": "application/yaml",
        "version": record.commit,
        "sha256": record.files[LOCK.name],
    }
    run = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"dvc repro at commit {record.commit}",
        "description": f"{session['processes']} processes on {', '.join(session['devices'])}",
        "startTime": session["started"],
        "actionStatus": "http://schema.org/CompletedActionStatus",
        "instrument": {"@id": LOCK.name},
        "object": refer(PARAMS.name, *data),
        "result": refer(*record.model),
    }
    return {
        "@context": [f"{RO_CRATE}/context", "https://w3id.org/ro/terms/workflow-run/context"],
        "@graph": [
            {
                "@id": CRATE, "@type": "CreativeWork", "about": {"@id": "./"},
                "conformsTo": refer(RO_CRATE, "https://w3id.org/workflowhub/workflow-ro-crate/1.0"),
            },
            root,
            workflow,
            run,
            {"@id": DVC, "@type": "ComputerLanguage", "name": "DVC", "identifier": DVC, "url": DVC},
            {
                "@id": str(CARD), "@type": "File", "name": "Model card", "encodingFormat": "text/markdown",
                "about": {"@id": "./"},
            },
            *files,
            *(
                {"@id": key, "@type": "Dataset", "name": path, "identifier": f"{digest_name(digest)}:{digest}"}
                for key, (path, digest) in data.items()
            ),
            *(
                {"@id": url, "@type": "CreativeWork", "name": title, "version": version}
                for url, (title, version) in PROFILES.items()
            ),
        ],
    }  # fmt: skip


def refer(*ids: str) -> list[dict[str, str]]:
    """Refer to entities by their names."""
    return [{"@id": each} for each in ids]

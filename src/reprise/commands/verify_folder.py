"""`reprise verify DIR`: compare an exported folder with its commit, reproduce that commit, and sign the verdict."""

import datetime
from collections.abc import Iterable
from pathlib import Path

from reprise.commands.model_card import card_problems
from reprise.commands.verify import verify_commit
from reprise.core.config import PARAMS
from reprise.core.display import echo
from reprise.core.dvc_lock import LOCK
from reprise.core.errors import UserError
from reprise.core.files import write_json
from reprise.core.validation import read_recipe
from reprise.results.run import EVALUATION, commit_reader, parse_metrics, read_result
from reprise.results.vcs import resolve_commit, try_output
from reprise.results.verdict import Verdict
from reprise.sharing.folder import commit_problems, folder_problems
from reprise.sharing.forms import form_problems
from reprise.sharing.record import ATTESTATIONS, CARD, RECORD, Record, read_record, redact_url
from reprise.sharing.statement import fingerprint, read_private_key, sign
from reprise.sharing.verdict import verdict_statement


def verify_folder(folder: Path, key: Path | None = None) -> Verdict:
    """Check an exported folder, reproduce its commit from scratch, and print a verdict for each output.

    Args:
        folder: what `reprise export` wrote.
        key: private key that signs the verdict; None to sign nothing.

    Returns:
        The worst verdict.

    Raises:
        UserError: a file does not agree with the record or the commit, the commit cannot be fetched, the key cannot be
            used, or as for `verify`.
    """
    signer = read_private_key(key) if key else None  # before the hours of a run
    record = read_record(folder)
    report_problems(folder_problems(folder, record))
    find_commit(folder, record)
    commit = resolve_commit(record.commit)
    read = commit_reader(commit)
    committed = read_result(read, where=commit[:12])
    report_problems(commit_problems(folder, record, committed, read))
    evaluated = parse_metrics(EVALUATION, read(EVALUATION) or b"")
    report_problems(form_problems(folder, record, evaluated, read))
    weights = [digest for name, digest in record.files.items() if name.endswith(".safetensors")]
    report_problems(card_problems(folder / CARD, read_recipe(folder / PARAMS), evaluated, weights))
    echo(f"verify: {folder}: {len(record.files)} files, recipe, {LOCK} and card agree with commit {commit[:12]}")
    verdicts, reproduced = verify_commit(str(folder), commit, committed)
    if signer:
        public, now = signer.public_key(), datetime.datetime.now(datetime.UTC)
        envelope = sign(verdict_statement(record, verdicts, reproduced, public, now), signer)
        file = folder / ATTESTATIONS / f"{now:%Y%m%dT%H%M%SZ}-{fingerprint(public)[:16]}.json"
        write_json(file, envelope)
        echo(f"verify: signed by the key {fingerprint(public)}: {file}")
    return max(verdicts.values())


def report_problems(problems: Iterable[UserError]) -> None:
    """Print a line for each problem.

    Raises:
        UserError: the last one.
    """
    found = list(problems)
    for problem in found[:-1]:
        echo(f"reprise: error: {problem}", err=True)
    if found:
        raise found[-1]


def find_commit(folder: Path, record: Record) -> None:
    """Fetch the commit of an exported folder, unless this repository has it.

    The code of the commit runs, and the folder is a stranger's. So only branches and tags of a remote of this
    repository are fetched: by its hash alone, a server may give a commit of anybody's fork.

    Raises:
        UserError: there is no such remote, or it does not have the commit.
    """
    commit, url = record.commit, record.repository
    if try_output("git", "cat-file", "-e", f"{commit}^{{commit}}") is not None:
        return
    remotes = (try_output("git", "remote") or "").splitlines()
    matching = [
        name for name in remotes if redact_url(try_output("git", "config", "--get", f"remote.{name}.url") or "") == url
    ]
    file, problem = folder / RECORD, f"commit {commit[:12]} is not in this repository"
    if not url or not matching:
        source = f"a clone of {url}, since its code will run" if url else "a clone that has it; the record names no URL"
        raise UserError(problem, file=file, key="repository", expected=source)
    for branches_or_tags in (f"+refs/heads/*:refs/remotes/{matching[0]}/*", "refs/tags/*:refs/tags/*"):
        try_output("git", "fetch", "--quiet", matching[0], branches_or_tags)
        if try_output("git", "cat-file", "-e", f"{commit}^{{commit}}") is not None:
            echo(f"verify: fetched commit {commit[:12]} from {url}")
            return
    missing = "".join(f"; its record says: {line}" for line in record.missing)
    raise UserError(f"{problem} nor at {url}{missing}", file=file, key="commit", expected="one of its branches or tags")

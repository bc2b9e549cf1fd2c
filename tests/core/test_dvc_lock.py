"""Outputs are hashed as DVC hashes them, by content and not by date."""

from pathlib import Path

import pytest

from reprise.core.dvc_lock import check_content, locked_outputs, output_md5, read_stages
from reprise.core.errors import UserError
from tiny import flip_a_bit


def test_every_output_has_the_md5_that_dvc_recorded(trained_repo: Path) -> None:
    locked = locked_outputs(read_stages((trained_repo / "dvc.lock").read_bytes()))
    assert {path: output_md5(trained_repo / path) for path in locked} == {
        path: output.md5 for path, output in locked.items()
    }
    assert {"models/final", "data/prepared", "metrics/evaluate.json"} <= locked.keys()


def test_files_that_dvc_ignores_do_not_count_and_any_other_does(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    before = output_md5(tmp_path)
    (tmp_path / ".b.partial").mkdir()
    (tmp_path / ".b.partial/b").write_text("b")
    assert output_md5(tmp_path) == before
    (tmp_path / "b").write_text("b")
    assert output_md5(tmp_path) != before
    assert output_md5(tmp_path / "c") is None


def test_a_flipped_bit_is_found_although_size_and_date_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("model/weights")
    file.parent.mkdir()
    file.write_bytes(b"0123456789")
    check_content(file.parent)  # without dvc.lock nothing is pinned
    Path("dvc.lock").write_text(f"stages: {{train: {{outs: [{{path: model, md5: {output_md5(file.parent)}}}]}}}}")
    check_content(file.parent)
    before = file.stat()
    flip_a_bit(file)
    after = file.stat()
    assert (before.st_size, before.st_mtime_ns, before.st_mode) == (after.st_size, after.st_mtime_ns, after.st_mode)
    with pytest.raises(UserError) as refused:
        check_content(file.parent)
    assert refused.value.file == "model"


@pytest.mark.parametrize("content", ["", "stages: [", "stages: {train: 1}", "a: b"])
def test_a_damaged_lock_is_refused(content: str) -> None:
    with pytest.raises(UserError) as refused:
        read_stages(content.encode())
    assert refused.value.file == "dvc.lock"

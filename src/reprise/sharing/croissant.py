"""Croissant metadata of the prepared data (docs.mlcommons.org/croissant/docs/croissant-spec.html, version 1.0)."""

from collections.abc import Mapping
from typing import Any

from reprise.core.config import Recipe
from reprise.core.paths import PREPARED

TERMS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
    "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
CONTEXT = {  # of the specification
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/", "conformsTo": "dct:conformsTo", **{term: f"cr:{term}" for term in TERMS},
    "data": {"@id": "cr:data", "@type": "@json"}, "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
}  # fmt: skip
TYPES = {"string": "sc:Text", "bool": "sc:Boolean", "double": "sc:Float"}  # of Arrow; the others are integers


def croissant(
    recipe: Recipe,
    files: Mapping[str, tuple[int, str]],
    columns: Mapping[str, Mapping[str, str]],
    source: str,
    date: str,
) -> dict[str, Any]:
    """Describe the prepared data: a file object per Arrow file and a record set per split.

    Args:
        recipe: recipe of the data.
        files: bytes and SHA-256 of each Arrow file, by name.
        columns: type of each column in Arrow, by split and name.
        source: URL of the repository, or "".
        date: when the run started, ISO 8601.
    """
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{recipe.task.name}-prepared",
        "description": f"The data of the task {recipe.task.name}, split, labelled and tokenized. It is not in this "
        f"folder: `dvc repro prepare` in the source repository writes it to {PREPARED}/, with these digests.",
        "license": "The license of the source data applies.",
        "url": source or "https://dvc.org",
        "datePublished": date,
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": f"{PREPARED}/{name}",
                "contentSize": f"{size} B", "encodingFormat": "application/vnd.apache.arrow.stream", "sha256": sha256,
            }
            for name, (size, sha256) in files.items()
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet", "@id": split, "name": split,
                "field": [
                    describe_field(split, column, kind, next(name for name in files if name.startswith(split)))
                    for column, kind in kinds.items()
                ],
            }
            for split, kinds in columns.items()
        ],
    }  # fmt: skip


def describe_field(split: str, column: str, kind: str, file: str) -> dict[str, Any]:
    """Describe a column of a split.

    Args:
        split: name of the record set.
        column: name of the column.
        kind: its type in Arrow, such as `list<item: int32>`.
        file: name of the split's first file.
    """
    field: dict[str, Any] = {
        "@type": "cr:Field", "@id": f"{split}/{column}", "name": f"{split}/{column}",
        "dataType": TYPES.get(kind, "sc:Integer"),
        "source": {"fileObject": {"@id": file}, "extract": {"column": column}},
    }  # fmt: skip
    return field | ({"repeated": True} if kind.startswith(("list", "large_list")) else {})

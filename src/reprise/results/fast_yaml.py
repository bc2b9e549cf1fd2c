"""YAML 1.2 as DVC writes it, read by libyaml: five hundred locks in two seconds, which take ruamel.yaml ten.

PyYAML itself reads YAML 1.1, to which 1e-5 is a text and `no` is false. Here plain scalars are what the core schema
says (yaml.org/spec/1.2.2, section 10.3.2), but for the octal and hexadecimal numbers that DVC never writes.
"""

import re
from typing import Any

import yaml


class CoreLoader(yaml.CSafeLoader):
    """PyYAML's loader with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  what PyYAML calls it


for name, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(rf"^(?:{pattern})$"), first)
# A leading zero means nothing in YAML 1.2.
CoreLoader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


def load_yaml(content: bytes) -> Any:
    """What a file of DVC says.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    return yaml.load(content, CoreLoader)  # noqa: S506  safe: it derives from CSafeLoader

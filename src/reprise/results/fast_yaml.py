"""Read the YAML 1.2 that DVC writes with libyaml, about five times as fast as ruamel.yaml.

PyYAML implements YAML 1.1, where 1e-5 is a string and `no` is false. This loader resolves plain scalars by the core
schema of YAML 1.2 (yaml.org/spec/1.2.2, section 10.3.2), except octal and hexadecimal numbers, which DVC never writes.
"""

import re
from typing import Any

import yaml


class CoreLoader(yaml.CSafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  PyYAML's own name


for name, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(rf"^(?:{pattern})$"), first)
# In YAML 1.2 a leading zero does not make a number octal.
CoreLoader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


def load_yaml(content: bytes) -> Any:
    """Parse a YAML file that DVC wrote.

    Raises:
        yaml.YAMLError: the content is not valid YAML.
    """
    return yaml.load(content, CoreLoader)  # noqa: S506  safe: it derives from CSafeLoader

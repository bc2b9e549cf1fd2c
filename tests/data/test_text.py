"""Lines on standard input are decoded alike on every system, or refused by number."""

import pytest

from reprise.core.errors import UserError
from reprise.data.text import decode_lines


@pytest.mark.parametrize(
    ("given", "decoded"),
    [
        ([b"a story\n", b"another"], ["a story", "another"]),
        ([b"a story\r\n", b"\r\n", b"another\r\n"], ["a story", "", "another"]),
        ([b"\xef\xbb\xbfa story\n", "caf\u00e9".encode()], ["a story", "caf\u00e9"]),
        ([], []),
    ],
    ids=["LF", "CR LF", "byte order mark", "nothing"],
)
def test_lines_have_neither_their_ends_nor_a_byte_order_mark(given: list[bytes], decoded: list[str]) -> None:
    assert list(decode_lines(given, "standard input")) == decoded


@pytest.mark.parametrize("line", [b"caf\xe9\n", b"a\0b\n", b"\xff\xfea\0\n"], ids=["Latin-1", "null byte", "UTF-16"])
def test_a_line_that_is_not_text_is_refused_with_its_number(line: bytes) -> None:
    lines = decode_lines([b"a story\n", line], "standard input")
    assert next(lines) == "a story"
    with pytest.raises(UserError) as error:
        next(lines)
    assert (error.value.file, error.value.key) == ("standard input", "line 2")

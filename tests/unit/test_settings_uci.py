"""UCI syntax: what libuci writes and what people type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpe_mcp.settings.uci import Entry, Section, SettingsError, hint, parse

pytestmark = pytest.mark.unit


def test_sections_options_and_lists_keep_their_order_and_lines() -> None:
    text = (
        "package cpe-mcp\n\nconfig wan 'dsl'\n\toption device 'eth1'\n\nconfig global\n\tlist lan 'a'\n\tlist lan 'b'\n"
    )
    assert parse(text, "f") == (
        Section("wan", "dsl", 3, (Entry("option", "device", "eth1", 4),)),
        Section("global", "", 6, (Entry("list", "lan", "a", 7), Entry("list", "lan", "b", 8))),
    )


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("bare", "bare"),
        ("'single quoted'", "single quoted"),
        ('"double quoted"', "double quoted"),
        ("''", ""),
        ('""', ""),
        (r"'it'\''s'", "it's"),
        (r"'back\slash'", r"back\slash"),
        (r'"a \"quote\" and a \\"', r'a "quote" and a \ '.rstrip()),
        (r"a\ b", "a b"),
        ("'a'\"b\"c", "abc"),
        ("'# no comment'", "# no comment"),
        ("bare#comment", "bare"),
        ("bare # comment", "bare"),
        ("'a;b'", "a;b"),
        ("'ä€'", "ä€"),
        ("value\r", "value"),
    ],
)
def test_quoting(written: str, value: str) -> None:
    (section,) = parse(f"config x\noption o {written}\n", "f")
    assert section.entries[0].value == value


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("option a b", 1, "before the first config line"),
        ("config", 1, "config takes a section type"),
        ("config a b c", 1, "config takes a section type"),
        ("config a b-c", 1, "letters, digits and _ only"),
        ("config 'a b'", 1, "printable ASCII"),
        ("config a\noption b", 2, "one name and one value"),
        ("config a\n\noption b c option d e", 3, "one name and one value"),
        ("config a\noption b c d", 2, "needs quotes"),
        ("config a\noption b-c d", 2, "letters, digits and _ only"),
        ("config a\noption b 'c", 2, "single quote"),
        ('config a\noption b "c', 2, "double quote"),
        ('config a\noption b "c\\', 2, "double quote"),
        ("config a\noption b c\\", 2, "nothing follows the backslash"),
        ("config a\noption b c; option d e", 2, "one statement to a line"),
        ("config a\noptoin b c", 2, "did you mean 'option'?"),
        ("config a\npackage b", 2, "before the first config line"),
        ("package", 1, "package takes one name"),
    ],
)
def test_what_is_not_uci_is_named_with_file_and_line(text: str, line: int, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text, "some/file")
    assert str(caught.value).startswith(f"some/file:{line}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "line",
    ["option key 's3cret", "option key s3cret s3cret", "s3cret", "'s3cret' x", "option s3cret", "optoin key s3cret"],
)
def test_a_broken_line_is_not_quoted_in_the_message(line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(f"config subscriber 'alice'\n{line}\n", "f")
    assert "s3cret" not in str(caught.value)


def test_hint_only_when_something_is_near() -> None:
    assert hint("prefrence", ["preference", "device"]) == "; did you mean 'preference'?"
    assert hint("zzz", ["preference", "device"]) == ""


@given(st.text())
def test_any_text_parses_or_is_refused_in_one_line(text: str) -> None:
    message = ""
    try:
        parse(text, "f")
    except SettingsError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


@given(st.text(st.characters(blacklist_characters="\n", blacklist_categories=["Cs"])))
def test_every_value_survives_the_way_uci_writes_it(value: str) -> None:
    quoted = "'" + value.replace("'", "'\\''") + "'"
    (section,) = parse(f"config x\n\toption o {quoted}\n", "f")
    assert section.entries[0].value == value

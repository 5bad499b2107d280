"""The strict CSV reader: every number is the file's own, or refused; what is missing is never 0."""

import codecs
import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import csv_table
from harness.errors import UsageError


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def numbers(path: Path, column: str = "value") -> list[float | None]:
    return [row.number(column) for row in csv_table.read(path)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends_are_found(tmp_path: Path, separator: str, end: str) -> None:
    lines = [separator.join(row) for row in (("zone", "value"), ("ES", "103.42"), ("FR", ""))]
    table = csv_table.read(written(tmp_path, end.join(lines)))
    assert table.columns == ("zone", "value")
    assert [(row["zone"], row.number("value"), row.line) for row in table] == [("ES", 103.42, 2), ("FR", None, 3)]


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-16-le", b""),
        ("utf-16-be", b""),
        ("latin-1", b""),
        ("cp1252", b""),
    ],
)
def test_encodings_are_found(tmp_path: Path, encoding: str, mark: bytes) -> None:
    text = "zone;value (g)\n\u00cele-de-France;1,5\nS\u00e3o Paulo;2,5\n"
    table = csv_table.read(written(tmp_path, mark + text.encode(encoding)))
    assert [(row["zone"], row.number("value (g)")) for row in table] == [
        ("\u00cele-de-France", 1.5),
        ("S\u00e3o Paulo", 2.5),
    ]


def test_a_euro_sign_of_windows_is_no_control_character(tmp_path: Path) -> None:
    assert csv_table.read(written(tmp_path, b"a,price \x80\n1,2\n")).columns == ("a", "price \u20ac")


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e6, 1e6).map(lambda value: round(value, 4)), st.sampled_from([";", "\t"]))
def test_a_decimal_comma_is_never_cut_off(
    tmp_path_factory: pytest.TempPathFactory, value: float, separator: str
) -> None:
    text = f"{value:.4f}".replace(".", ",")
    path = written(tmp_path_factory.mktemp("comma"), f"zone{separator}value\nES{separator}{text}\n")
    assert numbers(path) == [value]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 10**9), st.integers(0, 99), st.sampled_from([",", ";", "\t"]), st.sampled_from(["en", "de", "plain"])
)
def test_a_number_is_read_as_it_was_meant_or_refused(
    tmp_path_factory: pytest.TempPathFactory, whole: int, cents: int, separator: str, style: str
) -> None:
    english = f"{whole:,}.{cents:02d}"
    shown = {
        "en": english,
        "de": english.translate(str.maketrans(",.", ".,")),
        "plain": f"{whole}.{cents:02d}",
    }[style]
    path = written(tmp_path_factory.mktemp("meant"), f'zone{separator}value\nES{separator}"{shown}"\n')
    try:
        found = numbers(path)
    except UsageError:
        return
    assert found == [float(f"{whole}.{cents:02d}")]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text('ab,;"\n# ', max_size=5), st.integers(0, 99)), min_size=1, max_size=5))
def test_what_csv_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]]) -> None:
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(("name", "value"))
    writer.writerows(rows)
    table = csv_table.read(written(tmp_path_factory.mktemp("back"), out.getvalue()))
    assert [(row["name"], row.number("value")) for row in table] == [
        (name.strip(), float(value)) for name, value in rows
    ]


def test_a_comma_that_could_be_either_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"table\.csv:2: value is '1,234', which could be 1\.234 or 1234"):
        numbers(written(tmp_path, "zone;value\nES;1,234\n"))
    assert numbers(written(tmp_path, "zone;value\nES;1,234\nFR;0,5\n")) == [1.234, 0.5]
    assert numbers(written(tmp_path, 'zone,value\nES,"1,234"\nFR,"12,345,678"\nIT,17\n')) == [1234, 12345678, 17]
    with pytest.raises(UsageError, match=r"could be 1\.234 or 1234"):
        numbers(written(tmp_path, "zone;value\nES;1.234\nFR;0,5\n"))


def test_a_decimal_comma_in_a_comma_separated_file_is_refused_with_columns_found_and_wanted(tmp_path: Path) -> None:
    says = r"table\.csv:3: row has 3 fields; accepted: 2 fields, separated by comma: zone, value \(a decimal comma"
    with pytest.raises(UsageError, match=says):
        csv_table.read(written(tmp_path, "zone,value\nES,1\nFR,103,42\nIT,2\n"))
    with pytest.raises(UsageError, match="row has 3 fields"):
        csv_table.read(written(tmp_path, "zone,value\nES,103,42\n"))


@pytest.mark.parametrize("text", ["", "NaN", "nan", "N/A", "n/e", "null", "-"])
def test_what_is_missing_is_none_and_never_zero(tmp_path: Path, text: str) -> None:
    assert numbers(written(tmp_path, f"zone,value\nES,{text}\nFR,0\n")) == [None, 0]


@pytest.mark.parametrize("text", ["inf", "1e999", "12 g", "1 234", "0x10", "1_000", "1.2.3", "abc", "1'234"])
def test_what_is_no_number_is_refused_with_its_line_and_column(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"table\.csv:2: value is .*; accepted: a finite number, or empty"):
        numbers(written(tmp_path, f'zone,value\nES,"{text}"\n'))


def test_comments_blank_lines_and_quotes(tmp_path: Path) -> None:
    text = '# source: the operator\n# licence: CC0\nzone,value\n\n# a remark\n"a, b",1\n"two\n# lines",2\n'
    table = csv_table.read(written(tmp_path, text))
    assert table.notes == {"source": "the operator", "licence": "CC0"}
    assert [(row["zone"], row.line) for row in table] == [("a, b", 6), ("two\n# lines", 8)]


def test_a_quoted_decimal_comma_among_commas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r":2: value is '103,42'; .* with a decimal point: commas separate the fields"):
        numbers(written(tmp_path, 'zone,value\nES,"103,42"\n'))


def test_headings_without_a_name_and_fields_beyond_them(tmp_path: Path) -> None:
    table = csv_table.read(written(tmp_path, ",type,,total\n0,a1,,1022.21\n1,a2,,5,\n"))
    assert table.columns == ("column 1", "type", "column 3", "total")
    assert [row.number("total") for row in table] == [1022.21, 5]


def test_a_decimal_comma_is_not_hidden_by_an_empty_last_field(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r":2: row has 4 fields; accepted: 3 fields"):
        csv_table.read(written(tmp_path, "zone,value,note\nES,103,42,\nFR,1,x\n"))
    table = csv_table.read(written(tmp_path, "zone,value,source\nES,0.5,EPA\nFI,0.077,EEA,\n"))
    assert [row.number("value") for row in table] == [0.5, 0.077]
    table = csv_table.read(written(tmp_path, "x,y,\n1,2,\n3,4,\n"))
    assert [(row.number("x"), row.number("y")) for row in table] == [(1, 2), (3, 4)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["", "1", "2.5", "x"]), min_size=2, max_size=5), st.data())
def test_one_decimal_comma_anywhere_never_changes_a_number_in_silence(
    tmp_path_factory: pytest.TempPathFactory, fields: list[str], data: st.DataObject
) -> None:
    numeric = [place for place, each in enumerate(fields) if each == "2.5"]
    if not numeric:
        return
    broken = [*fields]
    broken[data.draw(st.sampled_from(numeric))] = "2,5"
    head = ",".join(f"c{place}" for place in range(len(fields)))
    path = written(tmp_path_factory.mktemp("one"), f"{head}\n{','.join(broken)}\n{','.join(fields)}\n")
    with pytest.raises(UsageError, match=r":2: row has"):
        csv_table.read(path)


def test_excels_separator_line(tmp_path: Path) -> None:
    assert numbers(written(tmp_path, "sep=;\nzone;value\nES;1,5\n")) == [1.5]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"# a: b\n", "holds comments only"),
        (b"a,a\n1,2\n", "column a appears twice"),
        (b"a,b\n1\n", r":2: row has 1 fields; accepted: 2 fields"),
        (b'a,b\n"1,2\n', "is not CSV"),
        (b"a;b,c\n1;2,3\n", "could be separated by semicolon and comma"),
        (gzip.compress(b"a,b\n", mtime=0), "is compressed with gzip; accepted: a text file: unpack it"),
        (b"PK\x03\x04", "is a ZIP archive or a spreadsheet"),
        (b"\x00\x01\x02\x03a,b", "is not text"),
        (b"a,b\n1,\x81\n", "is not text in cp1252"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        csv_table.read(written(tmp_path, content))


def test_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder; accepted: a file"):
        csv_table.read(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        csv_table.read(tmp_path / "none.csv")


def test_missing_columns_name_those_found(tmp_path: Path) -> None:
    table = csv_table.read(written(tmp_path, "zone,value\nES,1\n"))
    with pytest.raises(UsageError, match="column unit is missing; accepted: zone, unit; found zone, value"):
        table.require(("zone", "unit"))


def test_rows_are_not_held_while_a_large_file_is_gone_through(tmp_path: Path) -> None:
    import tracemalloc

    path = written(tmp_path, "zone,value\n" + "ES,1.5\n" * 300_000)
    tracemalloc.start()
    try:
        with csv_table.opened(path) as table:
            total = sum(row.number("value") or 0 for row in table)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert total == 450_000

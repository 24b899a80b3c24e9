"""What real files contain: the same rows in any form are the same data, the rest is one line."""

import gzip
import json
import os
import uuid
from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from negrec.data.columns import Columns, sniff
from negrec.data.readers.base import FORMATS
from negrec.data.tables import load
from negrec.errors import InputError
from tests.data import made

# 2024-01-02 03:04:05 UTC, and with a fraction that Float64 has no room for among nanoseconds.
START = 1_704_164_645
ROWS = {
    "user": ["anna b", 'q"uote', "ü", "anna b", "u\u0308", "line\nfeed", "anna b"],
    "item": ["x,y", "z", "x,y", "'z'", "z", "🎈", "z"],
    "timestamp": [START + i for i in (3, 1, 2, 0, 0, 5, 0)],
}
TEXT = pl.DataFrame(ROWS).with_columns(pl.col("timestamp").cast(pl.String))


def read(path, folder, columns=None, **settings):
    return load(None, str(path), columns or Columns(), folder / "cache", folder, **settings)


def json_lines(frame: pl.DataFrame) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in frame.to_dicts()).encode()


def write(frame: pl.DataFrame, path) -> None:
    """The table as the file's name says."""
    name = path.name
    text = frame.write_csv(separator="\t" if ".tsv" in name else ",").encode()
    if ".jsonl" in name or ".ndjson" in name:
        text = json_lines(frame)
    if name.endswith(".parquet"):
        frame.write_parquet(path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(text))
    elif name.endswith(".zst"):
        path.write_bytes(pa.Codec("zstd").compress(text, asbytes=True))
    else:
        path.write_bytes(text)


@pytest.mark.parametrize("ending", list(FORMATS))
def test_the_same_rows_in_any_format_are_the_same_data(tmp_path, ending):
    write(pl.DataFrame(ROWS), tmp_path / f"rows{ending}")
    data = read(tmp_path / f"rows{ending}", tmp_path)
    # By user in the order of code points, then time, then row; ü and u + diaeresis are two.
    assert made.own_ids(data) == [
        ("anna b", "'z'", START),
        ("anna b", "z", START),
        ("anna b", "x,y", START + 3),
        ("line\nfeed", "🎈", START + 5),
        ('q"uote', "z", START + 1),
        ("u\u0308", "z", START),
        ("ü", "x,y", START + 2),
    ]
    write(pl.DataFrame(ROWS), tmp_path / "plain.parquet")
    assert data.hash == read(tmp_path / "plain.parquet", tmp_path).hash


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"\n\n") + b"\n\n",
        lambda text: text.rstrip(b"\n"),
        lambda text: text.replace(b",", b";"),
        lambda text: text.replace(b"b,y,6", b'"b",y,"6"'),
    ],
    ids=["bom", "crlf", "empty lines", "no last line end", "semicolons", "quotes"],
)
def test_other_ways_of_writing_a_csv(tmp_path, change):
    plain = b"user,item,timestamp\na,x,5\nb,y,6\na,y,7\n"
    for name, text in (("plain.csv", plain), ("other.csv", change(plain))):
        (tmp_path / name).write_bytes(text)
    assert sniff(tmp_path / "other.csv") == Columns("user", "item", "timestamp", None, None)
    expected = read(tmp_path / "plain.csv", tmp_path)
    assert made.own_ids(expected) == [("a", "x", 5), ("a", "y", 7), ("b", "y", 6)]
    assert read(tmp_path / "other.csv", tmp_path).hash == expected.hash


UUIDS = [uuid.UUID(int=(9 - i) << 96 | 4 << 76 | 2 << 62 | i) for i in range(3)]


@pytest.mark.parametrize("kind", ["text", "binary", "fixed", "uuid"])
def test_uuids(tmp_path, kind):
    values = {
        "text": pa.array([str(u) for u in UUIDS]),
        "binary": pa.array([u.bytes for u in UUIDS], pa.binary()),
        "fixed": pa.array([u.bytes for u in UUIDS], pa.binary(16)),
        "uuid": pa.array([u.bytes for u in UUIDS], pa.uuid()),
    }[kind]
    pq.write_table(pa.table({"user": values, "item": [1, 2, 3]}), tmp_path / "u.parquet")
    data = read(tmp_path / "u.parquet", tmp_path)
    assert data.user_ids.to_list() == sorted(str(u) for u in UUIDS)
    assert made.own_ids(data) == [(str(UUIDS[i]), i + 1) for i in (2, 1, 0)]


@pytest.mark.parametrize(
    ("values", "own"),
    [
        ([b"ab", "ü".encode(), b"x"], ["ab", "x", "ü"]),
        ([b"10", b"9", b"9"], [9, 10]),
        ([b"\xff\x00", b"\x01\x02", b"\x0f"], ["0102", "0f", "ff00"]),  # neither text nor UUIDs
    ],
)
def test_bytes_are_texts_where_they_can_be(tmp_path, values, own):
    pl.DataFrame({"user": values, "item": [1, 2, 3]}).write_parquet(tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet", tmp_path).user_ids.to_list() == own


@pytest.mark.parametrize(
    "ids",
    [
        pl.Series([2**53 + 1, 2**53, 7]),
        pl.Series([-(2**63), 2**63 - 1, 0]),
        pl.Series([2**64 - 1, 2**63, 10], dtype=pl.UInt64),
        pl.Series([200, 9, 10], dtype=pl.UInt8),
    ],
)
def test_integers_are_exact_in_any_format(tmp_path, ids):
    frame = pl.DataFrame({"user": ids, "item": [1, 2, 3]})
    hashes = set()
    for ending in (".parquet", ".csv", ".jsonl"):
        write(frame, tmp_path / f"i{ending}")
        data = read(tmp_path / f"i{ending}", tmp_path)
        assert data.user_ids.to_list() == sorted(ids)
        assert made.own_ids(data) == sorted(zip(ids, [1, 2, 3], strict=True))
        hashes.add(data.hash)
    assert len(hashes) == 1


MOMENTS = [datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)]
EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    "times",
    [
        [int(t.timestamp()) for t in MOMENTS],
        [int(t.timestamp()) * 10**3 for t in MOMENTS],
        [int(t.timestamp()) * 10**6 for t in MOMENTS],
        [int(t.timestamp()) * 10**9 for t in MOMENTS],
        [t.timestamp() for t in MOMENTS],
        [t.replace(tzinfo=None) for t in MOMENTS],
        MOMENTS,
        pl.Series(MOMENTS).dt.convert_time_zone("Asia/Tokyo"),
        pl.Series(MOMENTS).dt.cast_time_unit("ns"),
        [t.isoformat() for t in MOMENTS],
        [t.astimezone(EAST).isoformat() for t in MOMENTS],
        [f"{t:%Y-%m-%d %H:%M:%S}" for t in MOMENTS],
        # The first is read as plain, the second needs more: all are read again.
        ["2024-01-02T03:04:05Z", "2024-01-02"],
    ],
)
@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_times_of_any_kind_are_the_same_data(tmp_path, times, ending):
    frame = pl.DataFrame({"user": [1, 1], "item": [7, 8], "time": times})
    write(frame, tmp_path / f"t{ending}")
    data = read(tmp_path / f"t{ending}", tmp_path)
    assert data.item_ids.gather(data.item).to_list() == [8, 7]
    assert data.timestamp.tolist() == [(START - 11_045) * 10**6, START * 10**6]


def test_dates_are_days(tmp_path):
    frame = pl.DataFrame(
        {"user": [1, 1], "item": [7, 8], "day": [date(2024, 1, 2), date(1970, 1, 1)]}
    )
    for ending in (".parquet", ".csv"):
        write(frame, tmp_path / f"d{ending}")
        assert read(tmp_path / f"d{ending}", tmp_path).timestamp.tolist() == [0, 1704153600 * 10**6]


def test_a_fraction_after_a_thousand_whole_seconds(tmp_path):
    times = [*(str(START + i) for i in range(1500)), f"{START}.5"]
    rows = "".join(f"1,{i % 7},{t}\n" for i, t in enumerate(times))
    (tmp_path / "t.csv").write_text(f"user,item,timestamp\n{rows}")
    data = read(tmp_path / "t.csv", tmp_path)
    assert data.timestamp[:3].tolist() == [
        START * 10**6,
        START * 10**6 + 500_000,
        (START + 1) * 10**6,
    ]


def test_equal_times_keep_the_order_of_rows(tmp_path):
    # More rows than are read at a time.
    n = 120_000
    frame = pl.DataFrame(
        {"user": [i % 3 for i in range(n)], "item": range(n), "timestamp": [5] * n}
    )
    for ending in (".parquet", ".csv", ".csv.gz"):
        write(frame, tmp_path / f"e{ending}")
        data = read(tmp_path / f"e{ending}", tmp_path)
        expected = [*range(0, n, 3), *range(1, n, 3), *range(2, n, 3)]
        assert data.item_ids.gather(data.item).to_list() == expected


def test_sessions_in_place_of_users(tmp_path):
    (tmp_path / "s.csv").write_text("session,product,ts\ns2,a,1\ns1,b,2\n")
    assert sniff(tmp_path / "s.csv").user == "session"
    assert read(tmp_path / "s.csv", tmp_path).user_ids.to_list() == ["s1", "s2"]
    (tmp_path / "b.csv").write_text("session,user,product\ns2,u,a\ns1,u,b\n")
    assert read(tmp_path / "b.csv", tmp_path, Columns(user="session")).n_users == 2


EVENTS = "user,item,event,timestamp\na,x,view,1\na,y,cart,2\nb,y,view,3\n,,login,4\na,x,buy,5\n"


@pytest.mark.parametrize(
    ("events", "kept", "dropped"),
    [
        (["view", "cart"], [("a", "x", 1), ("a", "y", 2), ("b", "y", 3)], 2),
        (["buy", "cart"], [("a", "y", 2), ("a", "x", 5)], 3),
    ],
)
def test_rows_of_other_events_are_dropped_and_counted(tmp_path, events, kept, dropped):
    (tmp_path / "e.csv").write_text(EVENTS)
    data = read(tmp_path / "e.csv", tmp_path, Columns(event="auto"), events=events)
    assert made.own_ids(data) == kept
    assert data.cleaning.other_events == dropped
    assert data.lines()[0] == (
        f"read 2 users, 2 items, 5 interactions; dropped {dropped} of other events"
    )


def test_a_single_event_and_numbers(tmp_path):
    (tmp_path / "e.csv").write_text("user,item,type\na,x,1\na,y,2\nb,y,1\n")
    for events in (["1"], [1], "1"):
        data = read(tmp_path / "e.csv", tmp_path, Columns(event="type"), events=events)
        assert made.own_ids(data) == [("a", "x"), ("b", "y")]


def test_events_that_cannot_be_chosen(tmp_path):
    (tmp_path / "e.csv").write_text(EVENTS)
    line = r"e\.csv: dataset\.events: no row has 'click' in column 'event': there are view \(2\), "
    with pytest.raises(InputError, match=line):
        read(tmp_path / "e.csv", tmp_path, Columns(event="auto"), events=["view", "click"])
    with pytest.raises(InputError, match=r"dataset\.events needs a column of events: name it with"):
        read(tmp_path / "e.csv", tmp_path, Columns(event=None), events=["view"])
    with pytest.raises(ValueError, match=r"dataset\.events must name at least one event"):
        read(tmp_path / "e.csv", tmp_path, events=[])
    # Without events nobody is asked which column they are in.
    (tmp_path / "two.csv").write_text("user,item,event,event_type\na,x,1,2\nb,y,1,2\n,z,3,4\n")
    with pytest.raises(InputError, match="event and event_type may both be the column of events"):
        read(tmp_path / "two.csv", tmp_path, Columns(event="auto"), events=["1"])
    with pytest.raises(InputError, match="column 'user', row 3: has no value"):
        read(tmp_path / "two.csv", tmp_path, Columns(event="auto"))


def folder_of(tmp_path, parts):
    for name, rows in parts.items():
        file = tmp_path / "rows" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(rows, schema=["user", "item"], orient="row").write_parquet(file)
    return tmp_path / "rows"


def test_a_folder_of_parquet_files(tmp_path):
    parts = {"b.parquet": [(1, 9)], "a.parquet": [(1, 7), (2, 7)], "sub/c.parquet": [(1, 8)]}
    folder = folder_of(tmp_path, parts)
    folder_of(tmp_path, {"_old/x.parquet": [(1, 5)], ".hidden.parquet": [(1, 6)]})
    (folder / "_SUCCESS").touch()
    data = read(folder, tmp_path)
    assert made.own_ids(data) == [(1, 7), (1, 9), (1, 8), (2, 7)]
    assert data.name == "rows"
    # A file more, less, renamed or changed is another entry of the cache.
    folder_of(tmp_path, {"d.parquet": [(2, 9)]})
    assert read(folder, tmp_path).n_interactions == 5
    (folder / "b.parquet").rename(folder / "z.parquet")
    assert made.own_ids(read(folder, tmp_path)) == [(1, 7), (1, 8), (1, 9), (2, 7), (2, 9)]
    (folder / "a.parquet").unlink()
    assert read(folder, tmp_path).n_interactions == 3


def test_days_in_the_names_of_folders(tmp_path):
    parts = {"day=2024-01-03/0.parquet": [(1, 9)], "day=2024-01-02/0.parquet": [(1, 7), (2, 7)]}
    data = read(folder_of(tmp_path, parts), tmp_path)
    second, third = 1704153600, 1704240000
    assert made.own_ids(data) == [(1, 7, second), (1, 9, third), (2, 7, second)]
    # The same files under another day are other data.
    (tmp_path / "rows" / "day=2024-01-02").rename(tmp_path / "rows" / "day=2024-01-01")
    assert made.own_ids(read(tmp_path / "rows", tmp_path))[0] == (1, 7, second - 86_400)


def utf16(text):
    return text.encode("utf-16")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"user,item,timestamp\n", "has a header and no rows"),
        ("t.csv", b"user,item,timestamp", "has a header and no rows"),
        ("t.csv", b"\n\n", "cannot be read"),
        ("t.csv", b"\xef\xbb\xbf", "cannot be read"),
        ("t.csv", utf16("user,item\na,x\nb,y\n"), r"is no UTF-8 text \(UTF-16, perhaps\)"),
        ("t.csv", "user,item\na,x\nb,y\n".encode("utf-16-le"), "is no UTF-8 text"),
        ("t.csv", "user,item\nä,x\nb,y\n".encode("latin-1"), "t.csv is no UTF-8 text: save it as"),
        ("t.csv.gz", gzip.compress("user,item\nä,x\n".encode("latin-1"), mtime=0), "is no UTF-8"),
        ("t.csv", b"user,item\na\0b,x\nb,y\n", r"column 'user': 'a\\x00b' has a NUL byte"),
        ("t.csv", b"user,item\ra,x\rb,y\r", "its lines end in CR alone"),
        ("t.csv", b"user,item\na,x,1\nb,y\n", "t.csv, line 2: it has more values"),
        ("t.csv", b"user,item\na\nb,y\n", "column 'item', row 1: has no value"),
        ("t.csv", b"user,item\na,x\nb", "the last line has 1 of 2 fields"),
        ("t.csv.gz", gzip.compress(b"user,item\na,x\nb,y\n", mtime=0)[:-9], "cannot be read"),
        ("t.csv.gz", b"user,item\na,x\n", "cannot be read"),
        ("t.parquet", b"PAR1", "cannot be read"),
        ("t.jsonl", b'{"user":1,"item":2}\n{"user":1,"it\n', "cannot be read"),
        ("t.jsonl", b"[1, 2]\n", "cannot be read"),
        ("t.xlsx", b"PK", "its name must end in one of .parquet, .csv"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / name, tmp_path)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_folder_without_tables(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty is a folder without Parquet files"):
        read(tmp_path / "empty", tmp_path)


def test_json_lines_of_many_kinds(tmp_path):
    lines = [
        {"user": 7, "item": "10", "extra": {"a": [1]}},
        {"item": 9, "user": "7"},
        {"user": 18, "item": 9.0, "extra": None},
    ]
    (tmp_path / "j.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    assert made.own_ids(read(tmp_path / "j.jsonl", tmp_path)) == [(7, 10), (7, 9), (18, 9)]


def test_a_text_after_ten_thousand_numbers(tmp_path):
    lines = [{"user": 1, "item": i % 50} for i in range(10_001)] + [{"user": "x", "item": 1}]
    (tmp_path / "j.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read(tmp_path / "j.jsonl", tmp_path).user_ids.to_list() == ["1", "x"]


def test_a_source_is_read_again_only_when_it_changed(tmp_path, monkeypatch):
    from negrec.data import cache

    path = tmp_path / "t.csv"
    path.write_text("user,item\na,x\nb,y\n")
    hashed = []
    digest = cache._digest
    monkeypatch.setattr(cache, "_digest", lambda file: hashed.append(file.name) or digest(file))
    monkeypatch.setattr(cache, "_SETTLED", 0.0)
    first = read(path, tmp_path)
    assert "t.csv" in hashed
    read(path, tmp_path)
    hashed.clear()
    assert read(path, tmp_path).hash == first.hash
    assert hashed == []
    # The same size, and the old time of writing set back.
    before = path.stat()
    path.write_text("user,item\na,x\nb,z\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read(path, tmp_path).item_ids.to_list() == ["x", "z"]

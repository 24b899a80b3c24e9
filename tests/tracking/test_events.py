import json
import logging
import math
import resource
from pathlib import Path

import pytest

from negrec.errors import InputError
from negrec.tracking.events import Event, EventLog


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl")


def test_what_is_appended_is_read(log: EventLog) -> None:
    written = [
        Event("params", {"k": "1"}, time=7),
        Event("metrics", {"valid/hr_10": 0.1}, step=3, time=9),
    ]
    for event in written:
        log.append(event)
    read = log.read()
    assert [event for event, _ in read] == written
    assert read[-1][1] == log.size
    assert log.read(read[0][1]) == read[1:]


def test_times_never_go_back(log: EventLog) -> None:
    log.append(Event("params", {"k": "1"}, time=9))
    log.append(Event("tags", {"k": "1"}, time=7))
    EventLog(log.path).append(Event("tags", {"k": "2"}, time=8))  # of a later process
    assert [event.time for event, _ in log.read()] == [9, 9, 9]


def test_nan_and_infinity_are_strict_json(log: EventLog) -> None:
    log.append(Event("metrics", {"a": math.nan, "b": math.inf, "c": -math.inf}))
    line = json.loads(log.path.read_text(), parse_constant=pytest.fail)
    assert line["values"] == {"a": "nan", "b": "inf", "c": "-inf"}
    values = log.read()[0][0].values
    assert math.isnan(float(values["a"]))
    assert (values["b"], values["c"]) == (math.inf, -math.inf)


def test_a_torn_line_is_cut_off(log: EventLog, caplog: pytest.LogCaptureFixture) -> None:
    whole = Event("tags", {"a": "b"})
    log.append(whole)
    size = log.size
    with log.path.open("ab") as file:
        file.write(b'{"kind": "metr')
    assert [event for event, _ in log.read()] == [whole]
    log.repair()
    assert log.size == size
    assert "torn" in caplog.text
    log.append(whole)
    assert [event for event, _ in log.read()] == [whole, whole]


def test_a_damaged_line_costs_no_other(log: EventLog, caplog: pytest.LogCaptureFixture) -> None:
    whole = Event("tags", {"a": "b"})
    log.append(whole)
    with log.path.open("ab") as file:
        file.write(b"\0\0\0\n")
        file.write(b'{"kind": "surprise", "values": {}, "step": null, "time": 1}\n')
    log.append(whole)
    with caplog.at_level(logging.WARNING):
        read = log.read()
    assert [event for event, _ in read] == [whole, whole]
    assert read[-1][1] == log.size
    assert len(caplog.records) == 2


def test_a_full_disk_leaves_no_half_line(log: EventLog) -> None:
    log.append(Event("tags", {"a": "b"}))
    before = log.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
    try:
        with pytest.raises(InputError, match="large"):
            log.append(Event("tags", {"name": "value" * 20}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log.path.read_bytes() == before

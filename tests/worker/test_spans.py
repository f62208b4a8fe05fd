"""Requests as spans of OpenTelemetry, through its own SDK: parents of the application's, children of the client's."""

import json

import pytest
from serving import gunicorn, wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(("path", "status"), [("/seats/3/", 200), ("/fails", 500)])
def test_a_request_is_a_span_around_those_of_the_application(tmp_path, path, status):
    with gunicorn(tmp_path, "traced:application") as server:
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\nTraceparent: 00-{TRACE}-{PARENT}-01\r\nConnection: close\r\n\r\n"
        assert f" {status} ".encode() in server.exchange(head.encode())
        lines = tmp_path / "spans"
        wait_until(lambda: lines.exists() and lines.read_text().count("\n") == 2, "two spans")
        view, served = map(json.loads, lines.read_text().splitlines())
    assert (served["name"], served["kind"]) == ("GET /seats/<int:seat>/", "SpanKind.SERVER")
    assert (served["context"]["trace_id"], served["parent_id"]) == (f"0x{TRACE}", f"0x{PARENT}")
    assert view["parent_id"] == served["context"]["span_id"]
    found = served["attributes"]
    assert (found["http.request.method"], found["url.path"], found["http.route"]) == ("GET", path, "/seats/<int:seat>/")
    assert (found["http.response.status_code"], found["fullhouse.statements.count"]) == (status, 2)
    assert found["fullhouse.statements.duration"] == 0.25
    assert found["fullhouse.application.duration"] > 0.04
    assert served["status"]["status_code"] == ("ERROR" if status == 500 else "UNSET")
    assert served["start_time"] <= view["start_time"] <= view["end_time"] <= served["end_time"]


def test_without_opentelemetry_there_are_none(tmp_path):
    with gunicorn(tmp_path, "apps:echo", _code="import sys; sys.modules['opentelemetry'] = None") as server:
        assert b" 200 " in server.exchange(b"GET / HTTP/1.0\r\n\r\n")
        assert "Error" not in server.logged()

"""A test that fails with text that is not UTF-8 is reported as any other."""

from __future__ import annotations

import pytest
from _pytest.reports import TestReport

execnet = pytest.importorskip("execnet")


def test_what_is_not_utf_8_can_be_sent_by_a_worker(request: pytest.FixtureRequest) -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    report = TestReport(
        nodeid=f"test_x[{name}]",
        location=("test_x.py", 1, name),
        keywords={name: 1},
        outcome="failed",
        longrepr=f"{name} is wrong",
        when="call",
        sections=[("Captured stderr call", name)],
        user_properties=[("path", name)],
    )
    data = request.config.hook.pytest_report_to_serializable(config=request.config, report=report)
    arrived = execnet.loads(execnet.dumps(data))
    assert arrived["longrepr"] == "caf\\udce9 is wrong"
    assert request.config.hook.pytest_report_from_serializable(config=request.config, data=arrived).failed

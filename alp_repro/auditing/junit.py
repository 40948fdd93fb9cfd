"""An audit as JUnit XML, which continuous integration servers display."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from alp_repro.auditing import gate

if TYPE_CHECKING:
    from alp_repro.auditing.result import Audit
    from alp_repro.auditing.specs import Indicator

# What XML 1.0 has no way to write, not even escaped.
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_BOUND = "robust_accuracy"


def to_junit(audit: Audit, *, fail_below: float | None = None) -> str:
    """Return the XML, in which the bound and every indicator are a test case each.

    A raised indicator is a failure, and one that is not judged is skipped. The bound fails below
    `fail_below`, and is an error where robustness could not be measured.

    Args:
      audit: what is written.
      fail_below: the least share that must survive, in percent; None: any will do.
    """
    cases = [_bound(audit, fail_below), *map(_indicator, audit.indicators)]
    counts = {
        name: str(sum(case.find(tag) is not None for case in cases))
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
    }
    seconds = f"{sum(attack.seconds for attack in audit.attacks):.1f}"
    totals = {"tests": str(len(cases)), **counts, "time": seconds}
    root = ElementTree.Element("testsuites", {"name": "alp_repro.audit", **totals})
    name = f"audit of {audit.settings.get('model', 'a model')}"
    suite = ElementTree.SubElement(root, "testsuite", {"name": _text(name), **totals})
    if "date" in audit.provenance:  # without the offset, which is UTC's
        suite.set("timestamp", str(audit.provenance["date"])[:19])
    suite.extend(cases)
    lines = [audit.verdict, *(f"left out: {line}" for line in audit.left_out), *audit.notes]
    ElementTree.SubElement(suite, "system-out").text = _text("\n".join(lines))
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, "unicode")}\n'


def _bound(audit: Audit, fail_below: float | None) -> ElementTree.Element:
    case = ElementTree.Element("testcase", {"classname": "alp_repro.audit", "name": _BOUND})
    found = gate.outcome(audit, fail_below=fail_below)
    if found == "not judged":
        _add(case, "error", "not measured", f"robustness was not measured: {audit.not_measured}")
    elif found == "below":
        message = f"{audit.worst_accuracy:.1%} survives, below the bound of {fail_below:g}%"
        _add(case, "failure", "below the bound", message, audit.verdict)
    return case


def _indicator(one: Indicator) -> ElementTree.Element:
    names = {"classname": "alp_repro.audit.indicators", "name": one.key}
    case = ElementTree.Element("testcase", names)
    if one.state == "not judged":
        _add(case, "skipped", "not judged", one.saw)
    elif one.raised:
        body = f"{one.definition}\nRaised: {one.threshold}.\nSource: {one.source}.\n{one.advice}"
        _add(case, "failure", "raised", f"{one.title}: {one.saw}", body)
    return case


def _add(case: ElementTree.Element, tag: str, kind: str, message: str, body: str = "") -> None:
    values = {"message": _text(message)}
    if tag != "skipped":  # which has no type in the schemas of JUnit's readers
        values["type"] = kind
    ElementTree.SubElement(case, tag, values).text = _text(body) or None


def _text(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", text)

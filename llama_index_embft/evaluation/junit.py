"""Outcomes as JUnit XML, which CI servers show as tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as Xml

from llama_index_embft._core.terminal import plain_text

if TYPE_CHECKING:
    from collections.abc import Sequence


class Outcome(NamedTuple):
    """One test.

    Attributes:
        name: Of what was tested.
        words: What was found.
        failure: Why it failed, in a few words; empty: it passed.
    """

    name: str
    words: str
    failure: str = ""


def junit_xml(outcomes: Sequence[Outcome], *, group: str, date: str) -> str:
    """A suite of tests.

    Args:
        outcomes: The tests.
        group: What they have in common: the metric that decides.
        date: When they ran.
    """
    failures = sum(bool(outcome.failure) for outcome in outcomes)
    suite = Xml.Element("testsuite", name="retrieval", timestamp=date)
    suite.set("tests", str(len(outcomes)))
    suite.set("failures", str(failures))
    for outcome in outcomes:
        case = Xml.SubElement(suite, "testcase", classname=group, name=_sound(outcome.name))
        if outcome.failure:
            Xml.SubElement(case, "failure", message=outcome.failure).text = _sound(outcome.words)
        else:
            Xml.SubElement(case, "system-out").text = _sound(outcome.words)
    Xml.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + Xml.tostring(suite, encoding="unicode") + "\n"


def _sound(text: str) -> str:
    """Without what XML has no place for."""
    kept = plain_text(text).encode("utf-8", "replace").decode("utf-8")
    return "".join(char for char in kept if char not in "\ufffe\uffff")

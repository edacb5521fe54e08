"""A comparison as JUnit XML, which CI servers show as tests."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

from llama_index_embft._core.terminal import plain_text

if TYPE_CHECKING:
    from llama_index_embft.evaluation.comparison import Comparison


def to_junit(comparison: Comparison, *, must_gain: bool = False) -> str:
    """One test a system: it fails where the system must not be adopted.

    Args:
        comparison: The comparison.
        must_gain: Fail a system also where no gain is proven.
    """
    suite = Xml.Element("testsuite", name="retrieval", timestamp=str(comparison.date))
    failures = 0
    for system in comparison.systems:
        name = f"{system.label} against {comparison.base.label}"
        case = Xml.SubElement(suite, "testcase", classname=comparison.primary, name=_sound(name))
        words = _sound(" ".join(comparison.sentences(system)))
        if system.decision == "do not adopt" or (must_gain and system.decision != "adopt"):
            failures += 1
            Xml.SubElement(case, "failure", message=system.decision).text = words
        else:
            Xml.SubElement(case, "system-out").text = words
    suite.set("tests", str(len(comparison.systems)))
    suite.set("failures", str(failures))
    Xml.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + Xml.tostring(suite, encoding="unicode") + "\n"


def _sound(text: str) -> str:
    """Without what XML has no place for."""
    kept = plain_text(text).encode("utf-8", "replace").decode("utf-8")
    return "".join(char for char in kept if char not in "\ufffe\uffff")

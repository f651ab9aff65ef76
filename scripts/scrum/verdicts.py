"""What reviewers are asked, what they found, and the table of what becomes of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

SEVERITIES = ("BLOCK", "WARN", "INFO")
# Findings this near to each other, in one file, speak of the same thing. Lines.
NEAR = 5
OPEN = "open"

INSTRUCTIONS = """You review a change as a careful senior engineer. You see only the diff below.
Report real defects: wrong results, lost data, races, leaks, security holes, broken contracts,
tests that cannot fail. Do not praise, do not restate the diff, and do not report style.
Trace each claim through the code before you make it; if you cannot see the code that would
decide it, say so and use INFO.

Write one line for each finding, in exactly this form and nothing else on the line:
BLOCK | path/to/file:line | what is wrong, and with which input it shows
The first word is BLOCK (must not be merged), WARN (should be fixed) or INFO (worth a look).
If there is nothing to report, write: NONE
Then a blank line, and your reasoning in a few sentences."""

_FINDING = re.compile(
    r"^[\s>*\-`]*\**(BLOCK|WARN|INFO)\**\s*\|\s*`?([^|`]+?)`?\s*\|\s*(.+?)\s*$", re.IGNORECASE
)
_NONE = re.compile(r"^[\s>*`]*NONE[\s.*`]*$", re.IGNORECASE)
_ROW = re.compile(r"^\| (\w{8}) \|.*\| ([^|]*) \|$")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a verdict."""

    reviewer: str
    severity: str
    where: str
    what: str

    @property
    def id(self) -> str:
        """Stable over runs that find the same, so that its disposition stays with it."""
        said = "\n".join((self.reviewer, self.where, self.what))
        return hashlib.sha256(said.encode()).hexdigest()[:8]

    @property
    def place(self) -> tuple[str, int]:
        """File and line; line 0 where none is named."""
        path, _, line = self.where.rpartition(":")
        number = re.match(r"\d+", line)
        return (path, int(number[0])) if path and number else (self.where, 0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reviewer said, or why it said nothing."""

    reviewer: str
    model: str
    text: str
    error: str = ""

    @property
    def findings(self) -> list[Finding]:
        """The findings, most severe first."""
        matches = [_FINDING.match(line) for line in self.text.splitlines()]
        found = [
            Finding(self.reviewer, match[1].upper(), match[2], match[3])
            for match in matches
            if match is not None
        ]
        return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))

    @property
    def is_readable(self) -> bool:
        """Whether it keeps to the form: findings, or the word that there are none."""
        return bool(self.findings) or any(_NONE.match(line) for line in self.text.splitlines())


def make_prompt(diff: str, label: str) -> str:
    """The question about a diff."""
    return f"Review the change {label!r}.\n\n```diff\n{diff}\n```"


def find_convergent(findings: Sequence[Finding]) -> set[str]:
    """Ids of findings that reviewers of different lineages share: those are seldom wrong."""
    shared: set[str] = set()
    for one in findings:
        for other in findings:
            if one.reviewer == other.reviewer:
                continue
            (path, line), (other_path, other_line) = one.place, other.place
            if path == other_path and abs(line - other_line) <= NEAR:
                shared |= {one.id, other.id}
    return shared


def read_dispositions(page: str) -> dict[str, str]:
    """What people wrote into the table's last column, by the finding's id."""
    rows = (_ROW.match(line) for line in page.splitlines())
    return {row[1]: row[2].strip() for row in rows if row is not None}


def render_section(label: str, verdicts: Iterable[Verdict], dispositions: Mapping[str, str]) -> str:
    """One reviewed change as a section of the page."""
    verdicts = list(verdicts)
    findings = [finding for verdict in verdicts for finding in verdict.findings]
    shared = find_convergent(findings)
    lines = [f"## {label}", ""]
    for verdict in verdicts:
        if verdict.error:
            told = f"gave no verdict: {verdict.error}"
        elif not verdict.is_readable:
            told = "did not keep to the form; read its verdict"
        else:
            count = len(verdict.findings)
            told = f"{count} finding{'' if count == 1 else 's'}"
        lines.append(f"- {verdict.reviewer} ({verdict.model}): {told}")
    lines += [
        "",
        "| Id | Reviewer | Severity | Where | Finding | Convergent | Disposition |",
        "|---|---|---|---|---|---|---|",
    ]
    for finding in sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.where)):
        cells = (
            finding.id,
            finding.reviewer,
            finding.severity,
            finding.where,
            finding.what,
            "yes" if finding.id in shared else "",
            dispositions.get(finding.id, OPEN),
        )
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def put_section(page: str, label: str, section: str) -> str:
    """The page with a change's section in place of its earlier one, or behind the others."""
    head = "# Dispositions\n\nWhat became of each finding: fixed (where), dismissed (why), open.\n"
    parts = re.split(r"^(?=## )", page or head, flags=re.M)
    kept = [part.rstrip() + "\n" for part in parts if part.split("\n", 1)[0] != f"## {label}"]
    return "\n".join([*kept, section])

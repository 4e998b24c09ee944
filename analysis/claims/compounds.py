"""Claims that are made of others, such as "all errors" or "10 of 12 targets"."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.claims.claim import Finding, Statement
from analysis.statistics.verdict import Verdict

HOLDS = {Verdict.REPRODUCED, Verdict.DIRECTION}
FAILS = {Verdict.CONTRADICTED, Verdict.NO_DIFFERENCE}


def compound_finding(statement: Statement, rows: Sequence[Finding]) -> Finding | None:
    """Judge a claim by its parts; None if no study tests any of them.

    It is reproduced if enough parts hold, contradicted if too many fail for that. A part holds if
    some study finds so and none finds the opposite.

    Args:
        statement: the claim.
        rows: findings on all claims that are no compounds.
    """
    behind = [f for f in rows if f.statement.id in statement.parts and f.study]
    if not behind:
        return None
    verdicts: dict[str, set[str]] = {}
    for finding in behind:
        verdicts.setdefault(finding.statement.id, set()).add(finding.verdict)
    fail = sum(not found.isdisjoint(FAILS) for found in verdicts.values())
    hold = sum(
        found.isdisjoint(FAILS) and not found.isdisjoint(HOLDS) for found in verdicts.values()
    )
    count, missing = len(statement.parts), len(statement.parts) - len(verdicts)
    enough = statement.enough or count
    verdict = Verdict.REPRODUCED if hold >= enough else Verdict.INCONCLUSIVE
    verdict = Verdict.CONTRADICTED if fail > count - enough else verdict
    return Finding(
        statement,
        verdict,
        reason=f"{missing} of {count} parts not run" if missing else "",
        study=", ".join(dict.fromkeys(f.study for f in behind)),
        scale=", ".join(dict.fromkeys(f.scale for f in behind)),
        measured=f"{hold} of {count} parts hold, {fail} fail",
        run_ids=tuple(sorted({run for f in behind for run in f.run_ids})),
    )

"""What each cell is going to be measured by, known before anything is trained."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from ..data.names import data_name
from ..errors import UserError
from ..settings import build
from .claims import Claim, sides_of
from .config import Evaluation, Job

GEOMETRY = ("alignment", "uniformity", "effective-rank")


def measures_of(evaluation: Evaluation) -> set[str]:
    """The `<data>/<protocol>` that an evaluation's results will be called by.

    Args:
        evaluation: Its settings name data sets that are there.
    """
    if evaluation.probe is not None:
        from ..evaluation.kinds import protocol
        from ..evaluation.probe import ProbeConfig

        probe = build(ProbeConfig, copy.deepcopy(evaluation.probe))
        data = probe.data.label or data_name(probe.data.name)
        source = None
        if probe.source is not None:
            source = probe.source.label or data_name(probe.source.name)
        return {f"{data}/{protocol(name).shown(source)}" for name in probe.protocols}
    if evaluation.finetune is not None:
        from ..tasks.finetuning.config import FinetuneConfig, protocol_name

        tuning = build(FinetuneConfig, copy.deepcopy(evaluation.finetune))
        return {f"{tuning.data.label or data_name(tuning.data.name)}/{protocol_name(tuning)}"}
    assert evaluation.geometry is not None  # the config was checked
    return {f"{data_name(evaluation.geometry['data'])}/{name}" for name in GEOMETRY}


def check_measures(claims: Sequence[Claim], jobs: Sequence[Job]) -> None:
    """Refuses claims that nothing will ever decide.

    Args:
        claims: All of a study.
        jobs: All of a study.

    Raises:
        UserError: A measure that no evaluation of a cell gives; says which ones it gives.
    """
    given: dict[str, set[str]] = {}
    for job in jobs:
        for evaluation in job.evaluations.values():
            given.setdefault(job.cell, set()).update(measures_of(evaluation))
    for number, claim in enumerate(claims):
        for place, cell in enumerate((claim.better, claim.worse)):
            there = given.get(cell, set())
            for measure in claim.measures:
                side = sides_of(measure)[place]
                if side not in there:
                    raise UserError(
                        f"The setting claims[{number}].measures={side!r} is measured by no "
                        f"evaluation of the cell {cell!r}, which gives "
                        f"{', '.join(sorted(there)) or 'nothing'}: add one to its evaluate."
                    )

"""The baseline of a night's sweep as an artifact: trial 0's adapter, exported to the variant with torch's numbers."""

from __future__ import annotations

from dataclasses import replace

from hpo.errors import HpoError
from hpo.paths import Home
from hpo.release.same_rows import Answered, SameRows
from hpo.results.needed import trained_in
from hpo.results.records import StudySnapshot
from hpo.trials.calls import run_alone
from hpo.trials.trial_files import read_spec
from trainers.protocol.requests import Export
from trainers.protocol.variants import Target
from trainers.runtime.card import ReleaseError

REFERENCE = "fp32"


def baseline_answers(
    same: SameRows, home: Home, study: StudySnapshot, target: Target
) -> tuple[Answered | None, str]:  # fmt: skip
    """The baseline's answers to these rows; None with the reason where it is what was released, or cannot be exported.

    It is the search's own training, for the finals need not have trained it again.
    """
    release = study.state.challenger or study.state.release
    data = study.state.data
    record = next((record for record in study.records if record.number == study.state.baseline), None)
    if record is None or data is None:
        return None, "the sweep has no baseline"
    if release is not None and release.trial == record.number:
        return None, "the baseline is what was released"
    origin, number = trained_in(study.name, record, study.records)
    paths, folder = home.sweep(origin).trial(number), same.scratch / "baseline"
    try:
        spec = replace(read_spec(paths), dir=str(paths.dir))
        run_alone(same.executor, Export(spec, data, [REFERENCE], str(folder), target))
        return same.answered(folder / REFERENCE, "baseline"), ""
    except (OSError, HpoError, ReleaseError) as error:
        return None, f"the baseline, trial {number}, could not be exported and measured: {error}"

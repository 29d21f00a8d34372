"""`hpo`, whose sweeps compute a formula instead of training: python -m tests.docker.fake_hpo sweep FILE."""

from __future__ import annotations

import functools

from hpo.cli.main import main
from hpo.commands import sweep

if __name__ == "__main__":
    sweep.run_sweep = functools.partial(sweep.run_sweep, worker="trainers.host.fake")
    main()

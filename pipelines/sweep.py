"""Run many pipelines that differ in some fields, and compare them: a sweep, or one of the studies.

Trials share what they have in common: two with the same autoencoder train it once. An interrupted sweep is continued by the
same command; trials that failed are tried again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcae15.sweep.command import run_sweep_script

if __name__ == "__main__":
    sys.exit(run_sweep_script(__doc__ or "", Path(__file__).parent / "configs"))

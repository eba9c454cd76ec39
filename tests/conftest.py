"""What every test needs before anything else is imported."""

from __future__ import annotations

import os

# A training is the same to the bit only with the same number of threads; tests compare trainings in this process with
# those of processes that share the cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"

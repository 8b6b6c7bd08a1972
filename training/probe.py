"""Measure frozen encoders with few and many labels: k-NN, logistic regression, few-shot draws.

python training/probe.py --config training/configs/probe.yaml model=outputs/quickstart/export \
    data.name=synthetic
"""

from __future__ import annotations

import sys

from rs_models.commands.evaluate import main

if __name__ == "__main__":
    from rs_models.settings import run_script

    sys.exit(run_script(main, sys.argv[1:]))

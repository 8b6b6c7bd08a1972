"""`python -m rs_models.predict`, for `accelerate launch`."""

from __future__ import annotations

import sys

from rs_models.predict.command import main
from rs_models.settings import run_script

if __name__ == "__main__":
    sys.exit(run_script(main, sys.argv[1:]))

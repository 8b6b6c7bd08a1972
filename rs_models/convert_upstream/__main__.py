"""`python -m rs_models.convert_upstream FILE ...`."""

from __future__ import annotations

import sys

from ..settings import run_script
from . import main

sys.exit(run_script(main, sys.argv[1:]))

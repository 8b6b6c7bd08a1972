"""Files and folders that a kill at any instant cannot spoil, and folders that belong to one job.

Whatever this package writes is written beside its place and renamed into it, so that a reader finds
the old content or the new one and never a part. What a killed process left lying is named so that
the next run of the same job knows and removes it.
"""

from .claiming import claim, new_folder, read_job
from .replacing import alone, replace_folder, replaced, settle
from .writing import (
    PARTIAL,
    check_writable,
    complete,
    readable,
    scratch,
    sha256,
    write_bytes,
    write_json,
    write_text,
    written,
)

__all__ = [
    "PARTIAL",
    "alone",
    "check_writable",
    "claim",
    "complete",
    "new_folder",
    "read_job",
    "readable",
    "replace_folder",
    "replaced",
    "scratch",
    "settle",
    "sha256",
    "write_bytes",
    "write_json",
    "write_text",
    "written",
]

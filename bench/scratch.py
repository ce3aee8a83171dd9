"""A directory for the data of the measured stores."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ON_DISK = "/var/tmp"  # noqa: S108 - mkdtemp makes a private directory in it
"""On a disk by the Filesystem Hierarchy Standard. `/tmp` may be memory, where a sync costs nothing."""


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A new directory on a disk, removed afterwards; kept when an error ends the block, for whoever looks into it."""
    directory = Path(tempfile.mkdtemp(prefix="kvstore-bench-", dir=_ON_DISK))
    keep = False
    try:
        yield directory
    except Exception:
        keep = True
        raise
    finally:
        if keep:
            print(f"data and logs of the replicas are kept in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)

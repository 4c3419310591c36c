"""A user's mistake, told without a traceback."""

import errno
import sys
from collections.abc import Callable

MACHINE = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied (a checkout that people share needs umask 002)",
    errno.EPERM: "not permitted",
    errno.EROFS: "the file system can only be read",
    errno.EIO: "the disk, or the network file system, fails",
    errno.ESTALE: "the network file system has lost the file",
}


class UserError(Exception):
    """What is wrong, where (file and key, or row), and what to do.

    Raised for anything the user can mend; `report` prints its text alone. Every other exception
    is a defect of ours and keeps its traceback.
    """


def report(main: Callable[[], int | None]) -> None:
    """Run a program's `main` and exit with its code; user errors become one plain message."""
    try:
        sys.exit(main() or 0)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno not in MACHINE:
            raise
        sys.exit(
            f"error: {MACHINE[error.errno]}: {error.filename or 'a product'}. Nothing finished was"
            " lost: mend that, then run the same command again."
        )

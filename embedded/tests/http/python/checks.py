"""Runs the checks of a script: every function whose name begins with `check_`, in order.

All are run, whatever fails; the process ends with 1 if any did. The server's address is the first
argument.
"""

import sys
import time
import traceback
from contextlib import contextmanager

URL = sys.argv[1]
HOST, PORT = URL.removeprefix("http://").split(":")
PORT = int(PORT)


def equal(found, expected):
    """Compares values and their types: 1 is not True, and not 1.0 either."""
    if repr(type(found)) != repr(type(expected)) or found != expected:
        raise AssertionError(f"found {found!r}, expected {expected!r}")


@contextmanager
def raises(kind, *texts):
    """The block must raise `kind`, with all these texts in its message; gives the error back."""
    seen = []
    try:
        yield seen
    except kind as error:
        seen.append(error)
        for text in texts:
            assert text in str(error), f"{text!r} is not in {error}"
    else:
        raise AssertionError(f"no error: {kind}")


def run(names):
    failed = 0
    checks = [value for name, value in names.items() if name.startswith("check_")]
    for check in checks:
        start = time.monotonic()
        try:
            check()
        except Exception:
            failed += 1
            print(f"FAILED {check.__name__}", file=sys.stderr)
            traceback.print_exc()
        else:
            print(f"ok     {check.__name__} {time.monotonic() - start:.2f} s")
    assert checks, "no checks"
    sys.exit(1 if failed else 0)

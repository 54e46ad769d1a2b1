"""`python -m server serve` is `relight-server serve`."""

import sys

from .cli import main

if __name__ == "__main__":  # not in the worker processes, which import this file again
    sys.exit(main())

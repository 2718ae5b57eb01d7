"""`python -m classification.serve`: the HTTP service; see `classification/cli/serve.py`."""

import sys

from classification.cli.serve import main

if __name__ == "__main__":
    sys.exit(main())

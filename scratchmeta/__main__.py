"""`python -m scratchmeta` is the command `scratchmeta`."""

import sys

from scratchmeta.cli import main

sys.exit(main())

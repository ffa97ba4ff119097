"""`python -m scratchmeta` is the command `scratchmeta`."""

import sys

from scratchmeta.run.cli import main

sys.exit(main())

"""`python -m tests.mutation`: as pytest does, finds modules of the tests by their names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

if __name__ == "__main__":
    from mutation import main

    sys.exit(main())

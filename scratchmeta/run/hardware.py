"""What numbers were made on, for config.json and tables of timings."""

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np


def hardware() -> dict[str, Any]:
    """What the numbers were made on, for config.json and tables of timings."""
    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.is_file()
        else []
    )
    return {
        "system": platform.platform(),
        "processor": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }

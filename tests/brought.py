"""What the test file of an algorithm brings to the tables that look at all algorithms.

tests/test_meta_sgd.py may say of `meta-sgd`

    INITIAL     a function of the module test_initial_parameters: the row of its small instance
    SMALL       a row of test_options: what makes its first preset small, or an option matter
    OPTIONS     {option: a row of test_options: another value and what it changes}
"""

import importlib.util

from scratchmeta.presets import OWN


def brought(table):
    """{algorithm: the table of this name}, of those whose own test file has one."""
    found = {}
    for name in OWN:
        module = f"test_{name.replace('-', '_')}"
        if importlib.util.find_spec(module) is not None:
            said = vars(importlib.import_module(module))
            found |= {name: said[table]} if table in said else {}
    return found

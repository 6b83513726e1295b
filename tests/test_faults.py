"""A few of each of the faults that tests/faults.py tries in full."""
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("limits and alarms are those of Unix", allow_module_level=True)

from . import faults


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it then refuses
@pytest.mark.parametrize("name", faults.FAULTS)
def test_faults_are_survived(name, tmp_path):
    survived_of, _, few = faults.FAULTS[name]
    assert survived_of(few, tmp_path) == few > 0

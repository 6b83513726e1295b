"""A few of each of the faults that tests/faults.py tries in full."""
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("limits and alarms are those of Unix", allow_module_level=True)

from . import faults

FEW = {"kills": 2, "damaged files": 24, "fuzzed images": 300}


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it then refuses
@pytest.mark.parametrize("name", faults.FAULTS)
def test_faults_are_survived(name, tmp_path):
    tried, survived = faults.FAULTS[name][0](*([FEW[name]] if name in FEW else []), tmp_path)
    assert tried > 0 and survived == tried

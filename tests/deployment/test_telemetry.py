import subprocess
import sys

PROGRAM = """
import classification
import nncf.telemetry.wrapper as nncf
import openvino.tools.ovc.telemetry_utils as ovc
print(type(nncf.telemetry).__name__, ovc.tm.__name__)
"""


def test_openvino_and_nncf_have_nothing_to_report_with():
    command = [sys.executable, "-c", PROGRAM]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert answer.split()[-2:] == ["MagicMock", "openvino.tools.ovc.telemetry_stub"]

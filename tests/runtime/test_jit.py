"""Machine code that is kept on disk is never another's."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import sys
sys.path.insert(0, {root!r})
from hf_sparse.runtime import jit

def make(value):
    @jit.jit
    def add(number):
        return number + value
    return add

function = make(int(sys.argv[1]))
{before}
print(function(1))
"""
# Both have read the empty index before either writes to it: with numba's numbers both would take the first. Then the
# index is that of 10, and the last machine code that of 20.
MEET = """
import time
from pathlib import Path
stored = function._cache._cache_file
read = stored._load_index
calls = []
def wait():
    found = read()
    calls.append(1)
    if len(calls) == 1:  # that looks for machine code; the next one comes before the index is written
        return found
    Path(sys.argv[2], sys.argv[1]).touch()
    while len(list(Path(sys.argv[2]).iterdir())) < 2:
        time.sleep(0.01)
    return found
stored._load_index = wait
save_index, save_data = stored._save_index, stored._save_data
def save_index_later(overloads):
    time.sleep(0.3 if sys.argv[1] == "10" else 0)
    save_index(overloads)
def save_data_later(name, data):
    time.sleep(0.6 if sys.argv[1] == "20" else 0)
    save_data(name, data)
stored._save_index, stored._save_data = save_index_later, save_data_later
"""


def run(folder: Path, value: int, before: str = "") -> "subprocess.Popen[str]":
    script = folder / "script.py"
    script.write_text(CODE.format(root=str(ROOT), before=before), encoding="utf-8")
    meeting = folder / "meeting"
    meeting.mkdir(exist_ok=True)
    command = [sys.executable, str(script), str(value), str(meeting)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip()


def test_processes_that_compile_at_the_same_time(tmp_path: Path) -> None:
    together = [run(tmp_path, value, MEET) for value in (10, 20)]
    assert [finish(process) for process in together] == ["11", "21"]
    assert finish(run(tmp_path, 10)) == "11"
    assert finish(run(tmp_path, 20)) == "21"


def test_code_is_kept(tmp_path: Path) -> None:
    finish(run(tmp_path, 10))
    found = "import os; os.environ['NUMBA_DEBUG_CACHE'] = '1'\nimport numba.core.config as c; c.DEBUG_CACHE = 1"
    assert "data loaded from" in finish(run(tmp_path, 10, found))

"""Load the quickstart's student as a stranger would: in a fresh process that has no hf-sparse, and classify.

The process runs outside this folder and refuses to import hf_sparse, so all it has is torch, transformers and the
files of the student.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

STUDENT = Path("runs/quickstart/student")
SENTENCES = (
    "The striker scored twice in the second half and took the home side to the top of the league.",
    "Shares in the airline fell after it warned that high fuel prices would cut this year's profit.",
    "The new phone has a faster chip, a better camera and a battery that lasts for two days.",
)
PROGRAM = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hf_sparse":
            raise ModuleNotFoundError(f"No module named {name!r} (hidden)", name=name)

sys.meta_path.insert(0, Hidden())
from transformers import pipeline

folder, *sentences = sys.argv[1:]
classify = pipeline("text-classification", model=folder, trust_remote_code=True)
for sentence, found in zip(sentences, classify(sentences)):
    print(f"{found['label']:>13}  {found['score']:.3f}  {sentence}")
assert not any(name.partition(".")[0] == "hf_sparse" for name in sys.modules)
"""


def main() -> None:
    """Run the program on three sentences."""
    if not STUDENT.is_dir():
        raise SystemExit(f"{STUDENT} is not there yet; run `make quickstart`")
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "HF_MODULES_CACHE": folder,
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        environment.pop("PYTHONPATH", None)
        command = [sys.executable, "-c", PROGRAM, str(STUDENT.resolve()), *SENTENCES]
        print("\nWithout hf-sparse, in a fresh process:")
        sys.stdout.flush()
        subprocess.run(command, cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    main()

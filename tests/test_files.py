"""Files and folders: whole or as they were; sizes and digests."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from hf_sparse.files import (
    disk_full_named,
    fingerprint,
    only_process,
    parse_size,
    remove_folder,
    replace_folder,
    whole_file,
    write_json,
)


def test_sizes() -> None:
    for text in ("50", "MB", "-1MB", "5 TB", "1e3MB"):
        with pytest.raises(ValueError, match="such as 50MB"):
            parse_size(text)
    assert [parse_size(text) for text in ("50MB", "1.5 gb", "800kB")] == [50_000_000, 1_500_000_000, 800_000]


def test_fingerprint_ignores_order_and_sees_types() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert len({fingerprint(value) for value in (1, "1", 1.5, None, [1], {"a": 1}, True)}) == 7


def test_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"a": "ä"})
    before = path.read_bytes()

    def write_half() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_half()
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # to write to it, somebody must have it open
    write_json(pipe, {"a": 1})
    assert os.read(descriptor, 100) == b'{\n  "a": 1\n}\n'
    os.close(descriptor)
    with pytest.raises(OSError, match="No space"), whole_file(pipe):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_only_one_process_is_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code = "import sys, time, pathlib; from hf_sparse.files import only_process\n"
    code += "with only_process(pathlib.Path(sys.argv[1])): print('in', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(ValueError, match="another process is at work"), only_process(folder):
            pass
        other.kill()
        other.wait()
        for _ in range(2):
            with only_process(folder):
                pass


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*none' to write 'a.json' to"):
        write_json(tmp_path / "none" / "a.json", {})


def test_folders_are_replaced_and_removed(tmp_path: Path) -> None:
    for name in ("new", "old", ".old.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in tmp_path.rglob("*")] == ["old", "new"]
    remove_folder(tmp_path / "old")
    remove_folder(tmp_path / "old")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EFBIG, "File too large"),
        OSError("2048 requested and 0 written"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_full_disk_is_named(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(OSError, match=r"cannot write to .*label.*free space"), disk_full_named(tmp_path / "label"):
        raise error


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), SafetensorError("invalid header"), ValueError("bad")])
def test_other_errors_are_left_alone(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, disk_full_named(tmp_path):
        raise error
    assert raised.value is error

"""`fashion-sweep doctor` on this machine: each fault is found, with its remedy, and a healthy machine is well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fashion.cluster import ray_folder
from fashion.config.data import Form
from fashion.doctor import examine as examining
from fashion.doctor.diagnosis import ClockOffset, Diagnosis
from fashion.doctor.examine import Node, Request, Weights, compare, examine, versions
from fashion.doctor.folder import BLOCK, BLOCKS, LEAST_FREE, SCRATCH, Folder, examine_folder, marked
from fashion.doctor.request import request_for
from fashion.errors import Problem, ResourcesError
from fashion.spec.sweep_spec import load_spec
from tests.support import layouts
from tests.support.machines import disks

INSTEAD = "set storage to another folder"
NOBODY = 65534  # a user who owns nothing


def wrong(found: list[Diagnosis], check: str = "") -> list[Diagnosis]:
    """What is not well, and only of this check; each says what was found and what to do."""
    bad = [each for each in found if not each.ok]
    assert {each.check for each in bad} <= {check}, bad
    assert all(each.problem.value and each.problem.fix for each in bad), bad
    return bad


def the_one(found: list[Diagnosis], check: str) -> Problem:
    (bad,) = wrong(found, check)
    return bad.problem


@pytest.fixture
def spec_file(tmp_path: Path, demo_root: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(
        json.dumps({"data": {"root": str(demo_root), "resize": 36, "crop": 32}, "storage": str(tmp_path / "runs"),
                    "model": {"backbone": "tiny", "weights": "none"}, "train": {"epochs": 2}})
    )  # fmt: skip
    return path


def request_of(spec: Path, *overrides: str) -> Request:
    return request_for(load_spec(spec, overrides))


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 8 MB; to remount it, one must be root."""
    with disks.tmpfs(tmp_path / "small", "8m") as place:
        yield place


def test_a_healthy_machine_is_well_and_nothing_stays_on_it(spec_file: Path, tmp_path: Path, cache_home: Path) -> None:
    before = sorted(cache_home.iterdir())
    found = examine(request_of(spec_file))
    assert not wrong(found)
    assert {each.check for each in found} == {"token", "gpu", "ray-files", "data", "writable", "speed", "free"}
    assert not any(each.problem.fix for each in found)
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]
    assert sorted(cache_home.iterdir()) == before


def test_a_folder_that_takes_no_files_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    problem = the_one(examine_folder("n", Folder("storage", tmp_path / "file" / "runs", INSTEAD)), "writable")
    assert problem.place == f"storage {tmp_path / 'file' / 'runs'}"
    assert problem.value == "Not a directory"
    assert problem.fix.endswith(INSTEAD)


def test_a_folder_of_somebody_else_is_found() -> None:
    folder = Path(tempfile.mkdtemp())  # not pytest's, which nobody else may even enter
    folder.chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:  # who may write everywhere
            os.seteuid(NOBODY)
        found = examine_folder("n", Folder("storage", folder, INSTEAD))
    finally:
        if root:
            os.seteuid(0)
        folder.rmdir()
    assert the_one(found, "writable").value == "Permission denied"


def test_a_read_only_folder_is_found(tmpfs: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True)
    found = examine_folder("n", Folder("storage", tmpfs / "not" / "yet", INSTEAD))
    assert the_one(found, "writable").value == "Read-only file system"


def test_a_full_disk_is_found(tmpfs: Path) -> None:
    filler = os.open(tmpfs / "filler", os.O_WRONLY | os.O_CREAT)
    assert os.write(filler, bytes(16 << 20)) < 16 << 20
    os.close(filler)
    found = examine_folder("n", Folder("storage", tmpfs, INSTEAD))
    assert {each.check: each.ok for each in found} == {"writable": False, "free": False}
    assert [each.problem.value for each in found] == ["No space left on device", "0.0 GB"]
    assert all("Free some space" in each.problem.fix for each in found)
    assert os.listdir(tmpfs) == ["filler"]


def test_too_little_room_is_found_and_left_to_who_writes_there(tmpfs: Path) -> None:
    found = examine_folder("n", Folder("cache", tmpfs, INSTEAD))
    assert the_one(found, "free").rule == f"has {LEAST_FREE / 1e9:.1f} GB free"
    assert "speed" not in {each.check for each in found}  # 16 MB more would not even fit


def test_a_slow_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, calls = os.fsync, []

    def slow(file: int) -> None:
        fsync(file)
        calls.append(file)
        now[0] += 2.0  # seconds for a block of 4 MiB

    now = [0.0]
    monkeypatch.setattr("fashion.doctor.folder.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("fashion.doctor.folder.os.fsync", slow)
    problem = the_one(examine_folder("n", Folder("storage", tmp_path, INSTEAD)), "speed")
    assert problem.value == f"{BLOCK / 2 / 1e6:.1f} MB/s"
    assert len(calls) == 1 < BLOCKS  # a slow disk is not written to for longer than that


def test_another_folder_of_the_same_name_is_found(tmp_path: Path) -> None:
    with marked(Folder("storage", tmp_path / "runs", INSTEAD)) as folder:
        (same,) = [each for each in examine_folder("n", folder) if each.check == "shared"]
        assert same.ok
        assert [path.name[: len(SCRATCH)] for path in tmp_path.iterdir()] == [SCRATCH]
        elsewhere = replace(folder, mark=str(tmp_path / "other" / Path(folder.mark).name))
        assert "Mount" in the_one(examine_folder("n", elsewhere), "shared").fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("missing", "value"),
    [
        ("", "nothing there"),
        ("split/val.txt", "val.txt: No such file or directory"),
        ("split/train_attr.txt", "train_attr.txt: No such file or directory"),
        ("img", "the last line of split/train.txt, is no file"),
    ],
)
def test_a_missing_data_set_is_found(
    spec_file: Path, demo_root: Path, tmp_path: Path, missing: str, value: str
) -> None:
    copy = tmp_path / "copy"
    for name in ("split", "img") if missing else ():
        (copy / name).mkdir(parents=True)
        for path in (demo_root / name).iterdir():
            if f"{name}/{path.name}" != missing and name != missing:
                (copy / name / path.name).symlink_to(path)
    bad = wrong(examine(request_of(spec_file, f"data.root={copy}")), "data")
    assert value in bad[0].problem.value
    assert str(copy) in bad[0].problem.place


def test_header_lines_are_not_counted_as_images(spec_file: Path, machine: Path, tmp_path: Path) -> None:
    root = layouts.small(tmp_path / "data", header=True, newline="\r\n", end="\r\n\r\n")
    request = request_of(spec_file, f"data.root={root}")
    (data,) = [each for each in examine(request) if each.check == "data"]
    assert data.ok
    assert data.problem.value == "train 4 images, val 2 images"
    # Room for the caches is reckoned from the same counts.
    (cache,) = [folder for folder in request.folders if folder.name == "cache"]
    assert cache.room - LEAST_FREE == (4 + 2) * 36 * 36 * 3
    (root / "split/val.txt").write_text("picture_filename\n")
    assert the_one(examine(request), "data").value == "no image in split/val.txt"


def test_lists_that_are_none_are_found(spec_file: Path, tmp_path: Path) -> None:
    split = tmp_path / "copy" / "split"
    split.mkdir(parents=True)
    os.mkfifo(split / "train.txt")
    (split / "val.txt").write_bytes(b"\xff\xfe\x00")
    train, val = wrong(examine(request_of(spec_file, f"data.root={tmp_path / 'copy'}")), "data")
    assert train.problem.value.startswith("split/train.txt: must be a file; got p")
    assert "can't decode" in val.problem.value


def test_a_wrong_path_of_weights_is_found(spec_file: Path, tmp_path: Path) -> None:
    problem = the_one(examine(request_of(spec_file, f"model.weights={tmp_path / 'none.pth'}")), "weights")
    assert problem.value == f"{tmp_path / 'none.pth'}, which is not there"
    assert "safetensors" in problem.fix


def test_a_node_must_have_the_same_file_of_weights_at_the_same_place(
    spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    (tmp_path / "w.pth").write_bytes(bytes(1000))
    request = replace(request_of(spec_file, f"model.weights={tmp_path / 'w.pth'}"), node="n", joined=True, gpus=0)
    assert [each.check for each in examine(request) if not each.ok] == ["token"]
    (tmp_path / "w.pth").write_bytes(bytes(999))
    (cut,) = [each.problem for each in examine(request) if each.check == "weights"]
    assert (cut.rule, cut.value) == ("the file of this machine, 1,000 bytes", f"{tmp_path / 'w.pth'}, 999 bytes")
    (tmp_path / "w.pth").unlink()
    (gone,) = [each.problem for each in examine(request) if each.check == "weights"]
    assert gone.fix == f"Put the file of this machine at {tmp_path / 'w.pth'} on every node"


@pytest.mark.parametrize("refused", ["", "nobody answers"])
def test_weights_that_can_be_downloaded_are_well_here_and_missing_on_a_node(refused: str) -> None:
    weights = Weights("imagenet of x", "/absent/x.pth", None, "https://example.org/x.pth", refused, "Put it there")
    request = Request(weights=(weights,))
    assert [each.check for each in examine(request) if not each.ok] == ["weights"] * bool(refused)
    joined = examine(replace(request, joined=True, gpus=0))
    (missing,) = [each.problem for each in joined if each.check == "weights"]
    assert missing.fix == "Put https://example.org/x.pth at /absent/x.pth on every node"


def test_torch_knows_where_weights_are(spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # Hosts of this machine's own, where nobody answers: nothing is asked of the network.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    (absent,) = request_of(spec_file, "model.backbone=resnet18", "model.weights=imagenet").weights
    assert absent.path.startswith(f"{tmp_path}/hub/checkpoints/resnet18-")
    assert "can't be reached" in absent.refused
    Path(absent.path).parent.mkdir(parents=True)
    Path(absent.path).write_bytes(bytes(10))
    (there,) = request_of(spec_file, "model.backbone=resnet18", "model.weights=imagenet").weights
    assert (there.path, there.size, there.refused) == (absent.path, 10, "")


def test_gpus_that_torch_does_not_see_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    problem = the_one(examine(Request(joined=True, gpus=8)), "gpu")
    assert problem.value.startswith("0, Ray offers 8: ")
    assert "torch" in problem.fix


def test_a_torch_that_can_not_be_imported_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    problem = the_one(examine(Request(gpus=1)), "gpu")
    assert "libcudart.so: cannot open shared object file" in problem.value


def test_a_torch_that_hangs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("import time\ntime.sleep(60)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(examining, "TORCH_PATIENCE", 0.5)
    assert "did not answer" in the_one(examine(Request(gpus=1)), "gpu").value


def test_versions_that_differ_are_found() -> None:
    mine = versions()
    assert {"python", "fashion-sweep", "torch", "torchvision", "ray", "numpy"} <= set(mine)
    assert not wrong(compare([Node("here", mine), Node("n1", mine)]))
    theirs = {**mine, "torch": "1.0", "fashion-sweep": "0.1.0+000000000000", "python": "3.10.0"}
    del theirs["pyarrow"]
    bad = {each.problem.place: each for each in wrong(compare([Node("here", mine), Node("n1", theirs)]), "version")}
    assert set(bad) == {"torch", "fashion-sweep", "python", "pyarrow"}
    assert {each.node for each in bad.values()} == {"n1"}
    assert bad["pyarrow"].problem.value == "not installed"
    assert mine["torch"] in bad["torch"].problem.fix


def test_a_skewed_clock_is_found_and_a_slow_network_is_not() -> None:
    def node(low: float, high: float) -> list[Diagnosis]:
        return compare([Node("here", {}), Node("n1", {}, ClockOffset(low, high))])

    assert not wrong(node(-0.002, 0.003))
    assert not wrong(node(-0.5, 30.0))  # it took half a minute to answer: nothing is known
    assert the_one(node(4.9, 5.1), "clock").value == "+5.000 s, give or take 0.100"
    assert "NTP" in the_one(node(-7.0, -1.5), "clock").fix


@pytest.mark.parametrize(
    ("mode", "joined", "ok"),
    [
        ("", False, True),
        ("token", False, True),
        ("disabled", False, False),
        ("", True, False),
        ("token", True, True),
        ("disabled", True, False),
    ],
)
def test_ray_without_a_token_is_found(monkeypatch: pytest.MonkeyPatch, mode: str, joined: bool, ok: bool) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    bad = wrong(examine(Request(joined=joined, gpus=0)), "token")
    assert bool(bad) is not ok
    assert all("RAY_AUTH_MODE" in each.problem.fix for each in bad)


def test_the_cache_folder_of_a_nodes_own_is_examined_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "file" / "cache"))
    request = Request(folders=(Folder("cache", tmp_path / "shared", INSTEAD),), joined=True, gpus=0)
    assert the_one(examine(request), "writable").place == f"cache {tmp_path / 'file' / 'cache'}"


def test_room_for_the_image_caches_is_asked_for_once(
    spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    sizes = "data.resize={grid: [40, 50]}"
    _, cache = request_of(spec_file, sizes).folders
    packs = {
        size: [(split, images * size * size * 3) for split, images in (("train", 96), ("val", 32))] for size in (40, 50)
    }
    assert cache.room - LEAST_FREE == sum(size for forms in packs.values() for _, size in forms)
    (tmp_path / "cache").mkdir()
    for split, size in packs[50]:
        (tmp_path / "cache" / f"0123-{split}-{Form(50)}-v1.arrow").write_bytes(bytes(size))
    _, cache = request_of(spec_file, sizes).folders
    assert cache.room - LEAST_FREE == sum(size for _, size in packs[40])


def test_a_cluster_of_other_versions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from fashion.cluster import joining, session

    def mismatch(**arguments: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.0.0\n    Python: 3.8.1\n")

    for name, value in {
        **session.ENVIRONMENT,
        "RAY_AUTH_MODE": "disabled",
        "RAY_gcs_server_port_wait_time_s": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("ray.init", mismatch)
    with pytest.raises(
        ResourcesError, match=r"--address auto: its versions differ from those here.*Ray: 2\.0\.0 Python: 3\.8\.1"
    ):
        joining.join("auto", ())


def test_a_folder_too_long_for_sockets_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 80)))
    told = next(each for each in examine(Request()) if each.check == "ray-files")
    assert told.ok
    assert "TMPDIR is" in told.problem.value
    monkeypatch.setattr(ray_folder, "ELSEWHERE", ())
    told = next(each for each in examine(Request()) if each.check == "ray-files")
    assert not told.ok
    assert "RAY_TMPDIR" in told.problem.fix
    assert not [each for each in examine(Request(joined=True)) if each.check == "ray-files"]


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fashion", "doctor", *arguments], cwd=folder, capture_output=True, text=True,
        timeout=120, env={**os.environ, **environment},
    )  # fmt: skip


def test_the_command_says_what_it_found_in_its_exit_code(spec_file: Path, tmp_path: Path) -> None:
    well = command(tmp_path, "s.yaml", RAY_AUTH_MODE="token")
    assert well.returncode == 0, well
    assert "finding" not in well.stdout
    assert well.stdout.splitlines()[-1].endswith("checks on this machine: all is well")
    assert "node" not in well.stdout.replace(os.uname().nodename, "")
    ill = command(tmp_path, "s.yaml", RAY_AUTH_MODE="disabled")
    assert ill.returncode == 1, ill
    *_, finding, verdict = ill.stdout.splitlines()
    assert finding == (
        "finding  this machine: Ray: lets nobody in without the token; got RAY_AUTH_MODE is disabled. "
        "Unset RAY_AUTH_MODE, or set it to token"
    )
    assert verdict.endswith("1 finding")
    assert "Traceback" not in ill.stderr


def test_json_lists_everything_that_was_looked_at(spec_file: Path, tmp_path: Path) -> None:
    done = command(tmp_path, "s.yaml", "--json", RAY_AUTH_MODE="disabled")
    assert done.returncode == 1, done
    found = json.loads(done.stdout)
    assert {tuple(each) for each in found} == {("check", "node", "ok", "place", "value", "rule", "fix")}
    assert [each["check"] for each in found if not each["ok"]] == ["token"]
    assert {each["node"] for each in found} == {"this machine"}


@pytest.mark.parametrize("arguments", [["absent.yaml"], ["bad.yaml"], ["s.yaml", "--addres", "x"]])
def test_what_can_not_be_examined_is_a_mistake(spec_file: Path, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "bad.yaml").write_text("data: {root: d}\nmodel: {backbone: tinny}\n")
    done = command(tmp_path, *arguments)
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_neither_torch_nor_ray_is_loaded_here(spec_file: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from fashion.cli.main import main\n"
        "try: main(['doctor', 's.yaml'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'torchvision', 'timm'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stderr.strip().endswith("[]"), done

"""What is sent to a cluster, and how its log is shown here: all of submitting that needs no Ray."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fashion.display.live import Display
from fashion.errors import ClusterError, SpecError
from fashion.record.run import Run
from fashion.spec.sweep_spec import load_spec
from fashion.submit import watch
from fashion.submit.command import BEGINS, entrypoint
from fashion.submit.job_log import Follower
from fashion.submit.watch import ConnectionLostError, Job, account, follow
from tests.support.displayed import begin, end, new_run, report, sweep

ABSOLUTE = "data: {root: /d}\nstorage: /runs\nmodel: {backbone: tiny, weights: none}\n"


def load(folder: Path, text: str, *overrides: str) -> Any:
    (folder / "s.yaml").write_text(text, encoding="utf-8")
    return load_spec(folder / "s.yaml", overrides)


# In the place of the head's fashion-sweep: writes down how it was called.
FAKE = """#!{python}
import json, os, sys
if sys.argv[1:] == ["--version"]:
    print("fashion-sweep, version 9.9")
else:
    text = sys.stdin.buffer.read().decode()
    json.dump([sys.argv[1:], text, os.getcwd()], open({out!r}, "w"))
    sys.exit(7)
"""


def on_the_head(folder: Path, command: str, there: bool = True) -> tuple[subprocess.CompletedProcess[str], Any]:
    """As Ray starts a job: the command is a shell's."""
    (folder / "bin").mkdir()
    out = folder / "called.json"
    if there:
        (folder / "bin" / "fashion-sweep").write_text(FAKE.format(python=sys.executable, out=str(out)))
        (folder / "bin" / "fashion-sweep").chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", command], env={"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}, capture_output=True, text=True
    )
    return done, json.loads(out.read_text()) if out.exists() else None


def test_the_spec_arrives_as_it_is(tmp_path: Path) -> None:
    text = ABSOLUTE + "# größer, $HOME `id` \\n 'quoted' \"twice\" $(id)\nEND"[:-4]
    folder = tmp_path / "it's here"
    folder.mkdir()
    overrides = ("train.lr=0.01", "model.dropout={choice: [0.0, 0.5]}", "name=other")
    spec = load(tmp_path, text, *overrides)
    command = entrypoint(text, spec, overrides, "+3", True, str(folder))
    done, called = on_the_head(tmp_path, command)
    assert done.returncode == 7, done
    words, arrived, where = called
    assert arrived == text.rstrip("\n") + "\n"
    assert where == str(folder)
    assert words[:2] == ["run", "-"]
    assert words[words.index("--name") + 1] == "other"
    assert [words[index + 1] for index, word in enumerate(words) if word == "--set"] == list(overrides)
    assert words[words.index("--storage") + 1] == "/runs"
    assert words[-3:] == ["--trials", "+3", "--fresh"]


def test_a_head_without_the_folder_or_the_program_says_so(tmp_path: Path) -> None:
    spec = load(tmp_path, ABSOLUTE)
    done, called = on_the_head(tmp_path, entrypoint(ABSOLUTE, spec, folder=str(tmp_path / "absent")), there=False)
    assert (done.returncode, called) == (2, None)
    assert f"Error: --folder {tmp_path}/absent: the head of the cluster has none." in done.stderr
    (tmp_path / "bin").rmdir()
    done, _ = on_the_head(tmp_path, entrypoint(ABSOLUTE, spec), there=False)
    assert done.returncode == 2
    assert "fashion-sweep is not on the PATH" in done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("/runs", "runs"), "storage: must be an absolute path on the cluster"),
        (("/d}", "d}"), "data.root: must be an absolute path"),
        (("weights: none", "weights: {choice: [none, w/a.safetensors]}"), "model.weights: must be an absolute path"),
    ],
)
def test_relative_paths_mean_nothing_on_the_cluster(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    text = ABSOLUTE.replace(*change)
    spec = load(tmp_path, text)
    with pytest.raises(SpecError, match=re.escape(words)) as caught:
        entrypoint(text, spec)
    assert "--folder" in str(caught.value)
    assert len(caught.value.problems) == 1
    entrypoint(text, spec, folder="/mnt/fashion")


def test_a_bucket_is_no_relative_path(tmp_path: Path) -> None:
    text = ABSOLUTE.replace("/runs", "s3://bucket/runs").replace("/d}", "s3://bucket/data}")
    assert "s3://bucket/runs" in entrypoint(text, load(tmp_path, text))


def test_a_field_that_the_weights_depend_on_is_no_path(tmp_path: Path) -> None:
    text = ABSOLUTE.replace("weights: none", "weights: {switch: model.backbone, cases: {tiny: none}, else: none}")
    assert "switch: model.backbone" in entrypoint(text, load(tmp_path, text))


def test_a_relative_folder_and_a_spec_that_is_too_long_are_refused(tmp_path: Path) -> None:
    spec = load(tmp_path, ABSOLUTE)
    with pytest.raises(SpecError, match="--folder: must be an absolute path"):
        entrypoint(ABSOLUTE, spec, folder="mnt")
    with pytest.raises(SpecError, match="must be at most 120,000 bytes"):
        entrypoint(ABSOLUTE + "#" * 120_000, spec)


# -- the log


COMMAND = f"echo '{BEGINS}'\nfashion-sweep --version\nexec fashion-sweep run - <<'END'\nname: s\nEND"


def log_of(events: str, version: str = "9.9") -> list[str]:
    ray = ["2026-01-01 00:00:00,000\tINFO job_manager.py:568 -- Runtime env is setting up."]
    return [
        *ray,
        *f"Running entrypoint for job s: {COMMAND}".split("\n"),
        BEGINS,
        f"fashion-sweep, version {version}",
        *events.splitlines(),
    ]


def told(folder: Path, mode: Any) -> tuple[Run, list[str]]:
    """A sweep's record, and what its display said in this mode."""
    run, spec = new_run(folder, 3)
    stream = io.StringIO()
    sweep(run, Display(run, spec, stream, mode))
    return run, stream.getvalue().splitlines()


def without_times(text: str) -> list[str]:
    return [re.sub(r"^\S+ |seconds=[\d.]+$", "", line) for line in text.splitlines()]


def test_a_followed_sweep_looks_as_one_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, here = told(tmp_path / "a", "plain")
    run, events = told(tmp_path / "b", "json")
    follower = Follower("s", COMMAND, "plain")
    for line in log_of("\n".join(["contents of all images: 3 of 7", *events])):
        follower.line(line)
    follower.finish(failed=False)
    out, err = capsys.readouterr()
    assert without_times(out.replace(str(run.path), "R")) == without_times(
        "\n".join(here).replace(str(tmp_path / "a" / "sweep"), "R")
    )
    assert "contents of all images: 3 of 7\n" in err
    assert "the cluster has fashion-sweep 9.9, this machine" in err
    assert "name: s" not in out + err, "the command that Ray repeats"
    assert "Runtime env" not in out + err


def test_json_passes_events_on_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, events = told(tmp_path, "json")
    follower = Follower("s", COMMAND, "json", behind=True)
    for line in log_of("\n".join(["Warning: \x1b[2Jcleared", *events])):
        follower.line(line)
    follower.finish(failed=False)
    out, err = capsys.readouterr()
    assert out.splitlines() == events
    assert "Warning: \\x1b[2Jcleared" in err


def test_what_happened_before_is_told_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep that went on with an older record, looked at in the middle."""
    old, _ = told(tmp_path, "json")
    old.close()
    run, spec = Run.open(old.path), new_run(tmp_path / "other", 3)[1]
    stream = io.StringIO()
    display = Display(run, spec, stream, "json")
    display.recorded()
    display.note("2 of 3 trials are final")
    display.started()
    begin(run, display, 2)
    report(run, display, 2, 1, 1.2)
    follower = Follower("s", COMMAND, "plain", behind=True)
    for line in log_of(stream.getvalue()):
        follower.line(line)
    assert capsys.readouterr().out == ""
    follower.caught_up()
    lines = without_times(capsys.readouterr().out)
    assert [line.split()[0] for line in lines] == ["note", "sweep", "start"]
    assert "final=2 epochs_recorded=4" in lines[1]
    assert "trial=2 attempt=1 epochs_done=1" in lines[2]
    stream.truncate(0)
    report(run, display, 2, 2, 1.3)
    follower.line(stream.getvalue().strip("\0\n"))
    end(run, display, 2, "completed")
    follower.finish(failed=False)
    lines = without_times(capsys.readouterr().out)
    assert "epoch=2/10 val_loss=1.3000" in lines[0]
    assert "best" not in lines[0], "1.2 was better"
    assert "best_trial=2 best_epoch=1 val_loss=1.2000" in lines[-1]


def test_the_last_words_of_a_sweep_that_failed_are_told_later_too(capsys: pytest.CaptureFixture[str]) -> None:
    follower = Follower("s", COMMAND, "plain", behind=True)
    for line in log_of("Error: the data are gone"):
        follower.line(line)
    follower.finish(failed=True)
    assert "Error: the data are gone" in capsys.readouterr().err


def test_what_ends_at_once_may_be_in_the_log_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    setting_up, *command = log_of("Error: no such folder")
    at = command.index(BEGINS)
    follower = Follower("s", COMMAND, "plain")
    for line in [setting_up, *command[at:], *command[:at]]:
        follower.line(line)
    follower.finish(failed=True)
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "Error: no such folder"
    assert BEGINS not in out + err
    assert "name: s" not in out + err
    assert "Runtime env" not in out + err


def test_events_of_another_version_are_refused_in_words(tmp_path: Path) -> None:
    _, events = told(tmp_path, "json")
    follower = Follower("s", COMMAND, "plain")
    lines = log_of("\n".join(line.replace('"attempt"', '"try"') for line in events))
    with pytest.raises(ClusterError, match=r"fashion-sweep 9\.9 writes events that this one can't read \('attempt'\)"):
        list(map(follower.line, lines))


# -- the connection


class Flaky:
    """A job server whose log has ten lines. Its connection breaks after as many lines as each of `breaks` says."""

    def __init__(self, *breaks: int) -> None:
        self.breaks = list(breaks)
        self.asked = 0

    def job(self, identity: str) -> Job:
        return Job(identity, "s", COMMAND, "SUCCEEDED", 0)

    def lines(self, identity: str) -> Iterator[str | None]:
        self.asked += 1
        end = self.breaks.pop(0) if self.breaks else 10
        for number in range(min(end, 10)):
            yield None
            yield f"line {number}"
        if end < 10:
            raise ConnectionLostError("gone")


class Lines(Follower):
    def __init__(self) -> None:
        super().__init__("s", COMMAND)
        self.got: list[str] = []

    def line(self, text: str) -> None:
        self.got.append(text)
        self.done = text == "line 9"


def test_a_connection_that_comes_back_tells_each_line_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RETRY_SECONDS", 0.01)
    server, follower, said = Flaky(4, 0, 2, 7), Lines(), list[str]()
    job = follow(server, server.job("s"), follower, said.append)
    assert job.exit_code == 0
    assert follower.got == [f"line {number}" for number in range(10)]
    assert server.asked == 5
    assert [text.split(",")[0] for text in said] == [
        "the connection is lost", "the connection is back", "the connection is lost", "the connection is back",
        "the connection is lost", "the connection is back",
    ]  # fmt: skip


class Short(Flaky):
    """One that ends the log before its last lines, as Ray's may where a job ends quickly."""

    def lines(self, identity: str) -> Iterator[str | None]:
        self.asked += 1
        yield from (f"line {number}" for number in range(7 if self.asked == 1 else 10))


def test_the_last_lines_of_a_log_that_ended_early_are_read_again() -> None:
    server, follower = Short(), Lines()
    assert follow(server, server.job("s"), follower, pytest.fail).exit_code == 0
    assert follower.got == [f"line {number}" for number in range(10)]
    assert server.asked == 2


def test_the_log_of_a_job_that_failed_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reason may follow the last event."""
    server = Flaky()
    monkeypatch.setattr(server, "job", lambda identity: Job(identity, "s", COMMAND, "FAILED", 2))
    assert follow(server, server.job("s"), Lines(), pytest.fail).exit_code == 2
    assert server.asked == 2


def test_a_connection_that_does_not_come_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RETRY_SECONDS", 0.01)
    server = Flaky(4, *[0] * 1000)
    with pytest.raises(ClusterError, match="no connection for 0 s; the sweep goes on"):
        follow(server, server.job("s"), Lines(), lambda text: None, patience=0.1)


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "words"),
    [
        ("SUCCEEDED", 0, 0, "s is done. Recorded in /runs/s."),
        ("FAILED", 1, 1, "with exit code 1"),
        ("FAILED", 2, 2, "with exit code 2"),
        ("FAILED", 130, 130, "with exit code 130"),
        ("FAILED", -9, 137, "killed by signal 9"),
        ("FAILED", None, 1, "its job failed on the cluster: out of memory"),
        ("STOPPED", None, 130, "was stopped"),
    ],
)
def test_a_job_ends_with_its_sweeps_exit_code(status: str, code: int | None, exit_code: int, words: str) -> None:
    job = Job("s~2", "s", COMMAND, status, code, "out of memory")
    assert job.exit_code == exit_code
    assert words in account(job, "/runs/s")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("submit s.yaml --plain --json", "exclude"),
        ("submit absent.yaml", "no such file"),
        ("submit s.yaml", "--folder"),
        ("submit s.yaml --folder runs", "must be an absolute path"),
        ("submit s.yaml --folder /mnt --trials some", "must be a number of trials"),
        ("submit s.yaml --folder /mnt --set train.lrr=1", "Did you mean"),
        ("submit s.yaml --folder /mnt --address ray://head:10001", "must be HOST:PORT"),
        ("submit s.yaml --folder /mnt --address head:port", "must be HOST:PORT"),
        ("watch --address 127.0.0.1:1", "nobody answers there"),
        ("watch --plain --json", "exclude"),
        ("stop", "Missing argument"),
        ("stop s --address 127.0.0.1:1", "nobody answers there"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(command: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("data: {root: d}\nmodel: {backbone: tiny, weights: none}\n")
    done = subprocess.run(
        [sys.executable, "-m", "fashion", *shlex.split(command)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ('{"version": "4", "ray_version": "2.9.3", "ray_commit": "x"}', "must run Ray 2."),
        ("<html>It works!</html>", "what answers there is not Ray's job server"),
        ("{}", "what answers there is not Ray's job server"),
    ],
)
def test_a_server_that_is_none_or_of_another_ray_is_told(answer: str, words: str, tmp_path: Path) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer.encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = subprocess.run(
            [sys.executable, "-m", "fashion", "watch", "--address", f"127.0.0.1:{server.server_address[1]}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        server.shutdown()
    assert done.returncode == 2, done
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_spec_comes_from_standard_input(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fashion", "check", "-"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        input="nam: x\n",
        timeout=120,
    )
    assert done.returncode == 2
    assert "standard input:1 nam" in done.stderr


def test_watching_ends_when_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """`watch | head`: the sweep goes on for hours, and the command would follow it silently."""
    monkeypatch.setattr("fashion.submit.job_log.reader_gone", lambda stream: True)
    with pytest.raises(BrokenPipeError):
        Follower("n", "fashion-sweep run").line("a line")

"""Test hosts: machines of their own as far as network, processes, users and files go, with an sshd to be set up through.

Each is a set of Linux namespaces on this machine: network (`networks.Network`), mount, PID and host name, and Ray finds one
CPU in it. What a cluster's
image and its surroundings would hold is laid in: a user `ubuntu` (who is root here), stand-ins for programs that can't do
their work in a namespace, and the packages of this machine's environment, read-only.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from networks import Network

PATIENCE = 60  # seconds for a host's start or end on a busy machine
HOME = "/home/ubuntu"
# Covered in every host; what of this machine's Python lies in there is bound to its place again.
PRIVATE = ("/tmp", "/root", "/home", "/mnt", "/run", "/dev/shm")
STAGE = "/media"  # where a host finds its folder, the shared one and the packages
PACKAGES = sysconfig.get_path("purelib")

# Makes a host out of a shell in new namespaces, and becomes its sshd. $1: the host's folder, $2: the folder all share,
# $3: this machine's packages, $4: its commands; then the folders that have to stay where they are.
BOOT = f"""
set -e
stage={STAGE}
mount -t tmpfs stage $stage
mkdir $stage/host $stage/shared $stage/packages $stage/commands $stage/kept
mount --bind "$1" $stage/host
mount --bind "$2" $stage/shared
mount --bind "$3" $stage/packages && mount -o remount,bind,ro $stage/packages
mount --bind "$4" $stage/commands && mount -o remount,bind,ro $stage/commands
shift 4
number=0
for place in "$@"; do
  number=$((number + 1))
  mkdir $stage/kept/$number
  mount --bind "$place" $stage/kept/$number && mount -o remount,bind,ro $stage/kept/$number
done
for place in {" ".join(PRIVATE)}; do mount -t tmpfs -o mode=1777 private $place; done
chmod 755 /root /home /mnt /run
number=0
for place in "$@"; do
  number=$((number + 1))
  [ -e "$place" ] || {{ mkdir -p "$place" && mount --bind $stage/kept/$number "$place"; }}
done
mkdir {HOME} /run/sshd
mount --bind $stage/host/home {HOME}
mount --bind $stage/host/bin /usr/local/sbin
for name in passwd group hosts; do mount --bind $stage/host/$name /etc/$name; done
hostname "$(cat $stage/host/hostname)"
if [ -d /sys/fs/cgroup ]; then  # where Ray looks how much of the machine is its own
  mount -t tmpfs cgroup /sys/fs/cgroup
  echo "100000 100000" > /sys/fs/cgroup/cpu.max
fi
cd /
exec /usr/sbin/sshd -D -e -f $stage/host/sshd_config 2> $stage/host/sshd.log
"""

SSHD = f"""
HostKey {STAGE}/host/host_key
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
PrintMotd no
PidFile none
MaxStartups 100
"""

# `python3 -m venv` is real; then what pip would download is laid in, so that pip finds it installed. Up to Python 3.11 a
# new environment has a setuptools of its own, too old to build the project; pip would fetch a newer one for that.
PYTHON = f"""#!/bin/sh
{shlex.quote(os.path.realpath(sys._base_executable))} "$@" || exit
[ "$1 $2" = "-m venv" ] || exit 0
packages=$(echo "$3"/lib/python3*/site-packages)
rm -rf "$packages"/setuptools* "$packages"/pkg_resources "$packages"/_distutils_hack "$packages"/distutils-precedence.pth
echo {STAGE}/packages > "$packages/packages.pth"
for command in {STAGE}/commands/*; do
  [ -f "$command" ] || continue
  case "$(basename "$command")" in fashion-sweep|python*|pip*|activate*|Activate*) continue ;; esac
  head -n 1 "$command" | grep -aq '^#!.*python' || continue
  {{ echo "#!$3/bin/python"; tail -n +2 "$command"; }} > "$3/bin/$(basename "$command")"
  chmod 755 "$3/bin/$(basename "$command")"
done
"""

# A program that does nothing, or what `then` says, for exactly the words it is made for; anything else is an error.
STAND_IN = """#!/bin/sh
echo "{name} $*" >> {stage}/host/stood_in
case "{name} $*" in
{cases}
esac
echo "this test host has no {name} for: $*" >&2
exit 64
"""


class Host:
    """One machine. It boots, is killed, and may boot again, with the same address and an empty disk.

    image: what its user's home holds when it boots. home: what it holds now.
    """

    def __init__(self, network: Network, number: int, folder: Path, shared: Path) -> None:
        self.network, self.number, self.folder, self.shared = network, number, folder, shared
        self.image, self.home = folder / "image", folder / "home"
        self.kept = [sys.prefix, sys.base_prefix]  # folders of this machine that stay where they are, read-only
        self.address = network.address(number)
        self.process: subprocess.Popen[bytes] | None = None
        self.lost = False

    def boot(self) -> None:
        """Start it. Returns when its sshd answers."""
        assert self.process is None
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.image, self.home)
        for name in ("sshd.log", "stood_in"):
            (self.folder / name).unlink(missing_ok=True)
        if self.lost:
            self.network.restore(self.number)
            self.lost = False
        # It dies with the process that started it, and everything in it then dies with it.
        within = ["setpriv", "--pdeathsig", "KILL", *self.network.inside(self.number)]
        space = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        shell = ["sh", "-c", BOOT, "boot", self.folder, self.shared, PACKAGES, Path(sys.executable).parent]
        with (self.folder / "boot.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*within, *space, *map(str, shell), *self.kept], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + PATIENCE
        while "Server listening" not in self._said("sshd.log"):
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the host did not start: {self._said('boot.log')}{self._said('sshd.log')}")
            time.sleep(0.05)

    def kill(self) -> None:
        """All its processes at once and without a word."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)
            self.process = None

    def lose(self) -> None:
        """As when a machine is taken away: nobody there hears of it."""
        self.network.cut(self.number)
        self.lost = True
        self.kill()

    @property
    def running(self) -> bool:
        return self.process is not None

    def command(self, command: str, env: Mapping[str, str] | None = None) -> list[str]:
        """What to start here for `command` to run there, as its user, in bash."""
        assert self.process is not None
        first = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0]
        inside = ["nsenter", "--target", first, "--mount", "--net", "--uts", "--pid", "--"]
        words = {
            "HOME": HOME,
            "USER": "ubuntu",
            "PATH": os.environ["PATH"],
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            **(env or {}),
        }
        return [*inside, "env", "-i", *(f"{key}={value}" for key, value in words.items()), "bash", "-c", command]

    def processes(self) -> list[str]:
        """Command lines of what runs there, but for sshd itself and its sessions."""
        done = subprocess.run(self.command("ps -eo args --no-headers"), capture_output=True, text=True, check=True)
        lines = [line.strip() for line in done.stdout.splitlines()]
        return [line for line in lines if not line.startswith(("sshd", "/usr/sbin/sshd", "ps -eo"))]

    def stood_in(self) -> list[str]:
        """What the stand-ins were called with so far."""
        return self._said("stood_in").splitlines()

    def _said(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


class Hosts:
    """Hosts 1 to count-1 of a network, none of them booted; number 0 has the switch. All gone after the `with` block.

    stand_ins: program -> the words it is called with -> a shell command that takes its place ("true": nothing).
    env: what every process of a session through ssh finds. shared: a folder, `/media/shared` on each host.
    """

    def __init__(
        self, count: int, stand_ins: Mapping[str, Mapping[str, str]], env: Mapping[str, str] | None = None
    ) -> None:
        self.network = Network(count)
        self.stand_ins, self.env = stand_ins, dict(env or {})
        self.stack = ExitStack()
        self.hosts: dict[int, Host] = {}

    def __getitem__(self, number: int) -> Host:
        return self.hosts[number]

    def __enter__(self) -> Self:
        missing = [name for name in ("sshd", "ssh", "rsync", "unshare", "nsenter") if which(name) is None]
        if missing:
            pytest.skip(f"test hosts need {', '.join(missing)} (Debian: openssh-server, rsync, util-linux)")
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fashion-hosts-")))
            stack.enter_context(self.network)
            self._probe()
            self.shared = self.folder / "shared"
            self.shared.mkdir()
            _key(self.folder / "key")
            for number, name in enumerate(self.network.names[1:], start=1):
                # Ray finds a machine's own address by the way to the outside.
                subprocess.run(
                    ["ip", "-n", name, "route", "add", "default", "via", self.network.address(0)], check=True
                )
                self.hosts[number] = self._lay_out(number)
            stack.callback(self._kill_all)
            self.stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    def _kill_all(self) -> None:
        for host in self.hosts.values():
            host.kill()

    def _probe(self) -> None:
        trial = [
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--mount-proc",
            "mount",
            "-t",
            "tmpfs",
            "none",
            STAGE,
        ]
        done = subprocess.run([*self.network.inside(0), *trial], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mount and PID namespaces can't be made here: {done.stderr.strip()}")

    def _lay_out(self, number: int) -> Host:
        folder = self.folder / f"host{number}"
        for name in ("image/.ssh", "bin"):
            (folder / name).mkdir(parents=True, mode=0o700)
        for name in (".profile", ".bashrc"):
            shutil.copy(f"/etc/skel/{name}", folder / "image")
        shutil.copy(self.folder / "key.pub", folder / "image/.ssh/authorized_keys")
        _key(folder / "host_key")
        own, address = f"host{number}", self.network.address(number)
        (folder / "hostname").write_text(own)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {own}\n")
        for name, line in (("passwd", f"ubuntu:x:0:0::{HOME}:/bin/bash"), ("group", "ubuntu:x:0:")):
            (folder / name).write_text(f"{line}\n{Path('/etc', name).read_text()}")
        words = " ".join(shlex.quote(f"{key}={value}") for key, value in self.env.items())
        (folder / "sshd_config").write_text(SSHD + (f"SetEnv {words}\n" if words else ""))
        programs = {"sudo": '#!/bin/sh\nexec "$@"\n', "python3": PYTHON}
        for name, cases in self.stand_ins.items():
            lines = [f"{shlex.quote(f'{name} {words}')}) {then}; exit ;;" for words, then in cases.items()]
            programs[name] = STAND_IN.format(name=name, stage=STAGE, cases="\n".join(lines))
        for name, text in programs.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        return Host(self.network, number, folder, self.shared)


def which(name: str) -> str | None:
    """The program; also where only root's PATH leads."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def run_within(
    host: Host, command: str, seconds: float, cwd: Path | str = HOME, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command on the host, to its end; killed there after so long."""
    there = f"cd {shlex.quote(str(cwd))} && exec timeout --signal=INT --kill-after=20 {seconds:.0f} bash -c {shlex.quote(command)}"
    return subprocess.run(
        host.command(there, env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=seconds + PATIENCE,
    )  # fmt: skip


def _key(path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, stdin=subprocess.DEVNULL
    )

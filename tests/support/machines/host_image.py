"""What a test host (`hosts`) is made of: the script that turns new namespaces into a machine, and its programs."""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig

HOME = "/home/ubuntu"
# Each host has its own, empty ones. Where this machine's Python lies below one of them, it is bound back to its path.
PRIVATE = ("/tmp", "/root", "/home", "/mnt", "/run", "/dev/shm")
STAGE = "/media"  # where a host finds its own folder, the shared one and the packages
SPACE = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
PACKAGES = sysconfig.get_path("purelib")
BASE_PYTHON: str = sys._base_executable  # type: ignore[attr-defined]  # of which this environment was made

# Turns a shell in new namespaces into a host and becomes its sshd. $1: the host's folder, $2: the folder that all hosts
# share, $3: this machine's packages, $4: its commands. The rest: folders that keep their paths.
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
if [ -d /sys/fs/cgroup ]; then  # where Ray reads how many CPUs it may use
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

# `python3 -m venv` is real. What pip would download is then laid in, so that pip finds it installed. Up to Python 3.11
# a new environment has its own setuptools, which is too old to build the project: pip would download a newer one.
PYTHON = f"""#!/bin/sh
{shlex.quote(os.path.realpath(BASE_PYTHON))} "$@" || exit
[ "$1 $2" = "-m venv" ] || exit 0
packages=$(echo "$3"/lib/python3*/site-packages)
cd "$packages" && rm -rf setuptools* pkg_resources _distutils_hack distutils-precedence.pth && cd - > /dev/null
echo {STAGE}/packages > "$packages/packages.pth"
for command in {STAGE}/commands/*; do
  [ -f "$command" ] || continue
  case "$(basename "$command")" in fashion-sweep|python*|pip*|activate*|Activate*) continue ;; esac
  head -n 1 "$command" | grep -aq '^#!.*python' || continue
  {{ echo "#!$3/bin/python"; tail -n +2 "$command"; }} > "$3/bin/$(basename "$command")"
  chmod 755 "$3/bin/$(basename "$command")"
done
"""

# A program that accepts exactly the command lines it was made for, and runs what is given for each. Any other fails.
STAND_IN = """#!/bin/sh
echo "{name} $*" >> {stage}/host/stood_in
case "{name} $*" in
{cases}
esac
echo "this test host has no {name} for: $*" >&2
exit 64
"""

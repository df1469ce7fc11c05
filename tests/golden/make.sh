#!/usr/bin/env bash
# Makes a fixture of the formats on disk, as the mirrortool on PATH writes them: tests/golden/VERSION.tar.xz.
# Run once for each released version, with that version; never made anew for an old one. tests/test_golden.py reads all.
#
#     make.sh                 when a version is released; git rm unreleased.tar.xz in the same commit
#     make.sh unreleased      of a version that is not released yet: replaced by the next release, or before, by this
#                             command, where a format changed since
#
# Needs root, as a small file system is mounted for a journal without room, qemu-io, and the python of mirrortool.
# Not in it: labels, which are of an inode; and a base that a link leads to, as links of archives are not followed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=${1:-$(mirrortool --version | cut -d' ' -f2)}
python=$(head -1 "$(command -v mirrortool)" | cut -c3-)
work=/tmp/mirrortool-golden
rm -rf "$work"
mkdir "$work"
cd "$work"
export MIRRORTOOL_STATE_DIRECTORY=$work/state
random() { head -c "$2" /dev/urandom | dd of="$1" bs=1 seek="$3" conv=notrunc status=none; }

# journal/: two volumes, one with a partial page; scans, marks, a resize, zeros, and what clients of NBD wrote.
truncate -s 262656 a.img
truncate -s 131072 b.img
random a.img 6000 0
random b.img 2048 65536
mirrortool init -q journal a=a.img b=b.img
mirrortool record -q journal
mirrortool mark -q journal first-scan
random a.img 1500 100000
truncate -s 300000 a.img
mirrortool record -q journal
mirrortool record -q journal --nbd "unix:$work/nbd.sock" 2>record.err &
recorder=$!
for _ in $(seq 100); do [ -S nbd.sock ] && break; sleep 0.1; done
qemu-io -f raw -c 'write -P 0x11 0 64k' -c flush -c 'write -z 128k 32k' -c 'write -P 0x22 1000 30' -c flush \
  "nbd+unix:///a?socket=$work/nbd.sock" >/dev/null
mirrortool mark -q journal while-serving
mirrortool replay -q journal mirror --until while-serving
mirrortool verify -q mirror >/dev/null
mirrortool replay -q journal registered
qemu-io -f raw -c 'write -P 0x33 0 4k' -c flush -c 'discard 64k 8k' -c flush "nbd+unix:///b?socket=$work/nbd.sock" >/dev/null
sleep 6
kill "$recorder"
wait "$recorder"

# copy/: what ship makes. copymirror/ follows it. pruned/: older files gone for a base. promoted/: a mirror that took over.
mirrortool ship -q journal copy
mirrortool replay -q copy copymirror
mirrortool ship -q journal copy
cp -a journal pruned
rm pruned/slots/*.json
random a.img 1000 4096
mirrortool record -q journal
cp -a journal/. pruned/ && rm -f pruned/slots/*.json
printf torn >>pruned/files/0000000000000001.mj
random b.img 512 0
mirrortool record -q pruned
mirrortool base -q pruned
mirrortool prune pruned --keep-size 1
mirrortool ship -q journal apart
mirrortool replay -q apart promoted
mirrortool promote -q promoted --yes
random promoted/volumes/a.img 100 8192
mirrortool record -q apart
mirrortool replay -q apart afterwards
mirrortool log --all --json journal >expected.jsonl
mkdir at
for lsn in $(python3 -c 'import json; print(*(json.loads(line)["lsn"] for line in open("expected.jsonl")))'); do
  mirrortool replay -q --no-slot journal "at/$lsn" --until "$lsn"
  (cd "at/$lsn/volumes" && sha256sum ./*.img | sed "s|  ./|  $lsn/|") >>expected.sha256
done

# What came after 0.1.0, or may be left by a crash. The functions of mirrortool that end too early stand for the crash.
features=$work/features
mkdir "$features" && cd "$features"
serve() {  # JOURNAL OPTION...: a live recording, killed after qemu-io did the commands of $qemu
  mirrortool record -q "$1" --nbd "unix:$features/nbd.sock" "${@:2}" 2>record.err &
  local recorder=$!
  for _ in $(seq 300); do [ -S nbd.sock ] && break; sleep 0.1; done
  qemu-io -f raw "${qemu[@]}" "nbd+unix:///a?socket=$features/nbd.sock" >/dev/null || true
  kill -9 "$recorder"
  wait "$recorder" || true
  rm -f nbd.sock
}

# addressed/: start addresses that init was given; and a mirror of it, with a trace, and seen.json beside the checkpoint.
truncate -s 40000 low.img && truncate -s 70000 high.img && random low.img 1000 3000
mirrortool init -q addressed low=low.img high=high.img@0x3100000000000000
mirrortool record -q addressed
mirrortool replay -q addressed addressedmirror --slot named --trace trace.jsonl

# forked/ in forkedcopy/: what a promotion dropped. killed/: as kill -9 leaves a live recording.
truncate -s 65536 a.img && random a.img 1000 0
mirrortool init -q killed a=a.img
mirrortool record -q killed
mirrortool mark -q killed kept
qemu=(-c 'write -P 0x11 0 8k' -c flush -c 'write -P 0x22 8k 8k')
serve killed
mirrortool ship -q killed forkedcopy
mirrortool replay -q forkedcopy forkedmirror --until kept
cp -a forkedcopy promoting && cp -a forkedmirror promotingmirror
mirrortool promote -q forkedmirror --until kept --yes

# promoting/: a promotion that was begun. Its mirror says that it is promoted.
sed -i "s|$features/forkedcopy|$features/promoting|" promotingmirror/mirror.json
"$python" -c '
import os, sys
from mirrortool import Until
from mirrortool.promote import Promotion
Promotion._complete = lambda self: os._exit(0)
with Promotion(sys.argv[1], until=Until(mark="kept")) as promotion:
    promotion.drain()
    promotion.verify()
    promotion.carry_out()' promotingmirror

# detached/: a journal without room, which lacks changes of its volume: detached.json, detached.log, reserve.
mkdir small && mount -t tmpfs -o size=2m tmpfs small
truncate -s 2097152 full.img
mirrortool init -q small/journal a=full.img
mirrortool record -q small/journal
head -c $(($(df --output=avail -B1 small | tail -1) - 65536 - 40960)) /dev/zero >small/filler
qemu=()
for number in $(seq 1 300); do qemu+=(-c "write -P $((number % 250 + 1)) $((number * 4))k 4k"); done
serve small/journal --when-full detach --reserve 64K
cp -a small/journal detached
umount small && rmdir small

# bad/ in wrong/: what a verification found.
mirrortool replay -q addressed wrong
random wrong/volumes/low.img 3 3100
mirrortool verify -q wrong >/dev/null || true

# startingover/: a mirror that begins anew from a base, as the files that it needs were pruned.
cp -a addressed based && rm -f based/slots/*.json
mirrortool replay -q --no-slot addressed startingover
for _ in 1 2 3; do
  random low.img 500 1000
  mirrortool record -q addressed
done
cp -a addressed/. based && rm -f based/slots/*.json
mirrortool base -q based
"$python" -c '
import os, sys
from mirrortool.journal import format as layout
from mirrortool.journal.bases.listing import base_lsns
from mirrortool.journal.directory import Journal
from mirrortool.mirror.directory import Mirror
mirror = Mirror(sys.argv[2])
mirror.save_checkpoint(mirror.checkpoint.resyncing(base_lsns(Journal(sys.argv[1]))[-1], ignores_table=False))' based startingover

mirrortool log --all --json addressed >expected.jsonl
sha256sum low.img high.img >expected.sha256
rm -f record.err
cd "$work"
rm -rf at nbd.sock record.err state
find . -name '*.sock' -delete
find . | sort
tar -C "$work" -cS . | xz -9e >"$here/$version.tar.xz"
ls -l "$here/$version.tar.xz"

#!/usr/bin/env bash
# Makes a fixture of the formats on disk, as the mirrortool on PATH writes them: tests/golden/VERSION.tar.xz.
# Run once for each released version, with that version; never made anew for an old one. tests/test_golden.py reads all.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=$(mirrortool --version | cut -d' ' -f2)
work=/tmp/mirrortool-golden
rm -rf "$work"
mkdir "$work"
cd "$work"
random() { head -c "$2" /dev/urandom | dd of="$1" bs=1 seek="$3" conv=notrunc status=none; }

# journal/: two volumes, one with a partial page; scans, marks, a resize, zeros, and what clients of NBD wrote.
truncate -s 262656 a.img
truncate -s 131072 b.img
random a.img 20000 0
random b.img 8192 65536
mirrortool init -q journal a=a.img b=b.img
mirrortool record -q journal
mirrortool mark -q journal first-scan
random a.img 5000 100000
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
random a.img 3000 4096
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
rm -rf at nbd.sock record.err
find . -name '*.sock' -delete
find . | sort
tar -C "$work" -cS . | xz -9e >"$here/$version.tar.xz"
ls -l "$here/$version.tar.xz"

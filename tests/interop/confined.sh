# confined.sh UMASK CAPABILITIES PATH... -- COMMAND: as a unit with ProtectSystem=strict and ReadWritePaths= has it.
set -e
mask=$1 capabilities=$2
shift 2
mount --make-rprivate /
writable=
while [ "$1" != -- ]; do
  mount --bind "$1" "$1"
  writable="$writable $1"
  shift
done
shift
mount -o remount,bind,ro /
while read -r _ where _; do
  case " $writable /dev /proc /sys " in *" $where "*) continue ;; esac
  case $where in /dev/* | /proc/* | /sys/*) continue ;; esac
  mount -o remount,bind,ro "$where" 2>/dev/null || true
done </proc/mounts
cd /
umask "$mask"
exec setpriv "--bounding-set=-all,$capabilities" --inh-caps=-all --no-new-privs -- "$@"

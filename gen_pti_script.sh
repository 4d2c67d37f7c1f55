#!/bin/sh
# Inverts photos: writes for each a latent, a tuned generator, films of the turning head, a volume and a mesh.
#
#   ./gen_pti_script.sh [--network PKL] [--target DIR|PHOTO] [--outdir DIR] [options of pti/run.py]
#
# DIR contains photos with their cameras (dataset.json) or raw photos, which dataset_tool_photo.py crops first.
# Repeating the command resumes after the last finished stage.  Without options it inverts one of the built-in heads.
set -eu

project=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
if [ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$project/.venv/bin/python" ]; then
  python=$project/.venv/bin/python # set up by `make`
fi
network=$project/models/heads-128.pkl
target=$project/dataset/testdata_img
photos=12 # the built-in head that looks into the camera; with --target, all photos
outdir=pti-out

need() { # need OPTION NUMBER_OF_ARGUMENTS_LEFT
  [ "$2" -ge 2 ] || { echo "Error: $1 needs a value" >&2; exit 2; }
}

number=$#
while [ "$number" -gt 0 ]; do
  case $1 in
    --network) need "$1" "$number"; network=$2; shift 2; number=$((number - 2)) ;;
    --target) need "$1" "$number"; target=$2; photos=all; shift 2; number=$((number - 2)) ;;
    --outdir) need "$1" "$number"; outdir=$2; shift 2; number=$((number - 2)) ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exec "$python" "$project/pti/run.py" --help ;;
    *) set -- "$@" "$1"; shift; number=$((number - 1)) ;; # kept, in order, for pti/run.py
  esac
done

case $network in
  *://*) ;;
  *) [ -e "$network" ] || { echo "Error: no network $network; give --network PKL" >&2; exit 1; } ;;
esac
[ -e "$target" ] || { echo "Error: no photos at $target; give --target DIR or --target PHOTO" >&2; exit 1; }

case $target in
  *.zip) prepared=yes ;;
  *)
    prepared=no
    for place in dataset.json img/dataset.json img.zip; do
      if [ -e "$target/$place" ]; then prepared=yes; fi
    done
    ;;
esac
if [ "$prepared" = no ]; then
  if [ -d "$target" ]; then
    photos_in=$(cd "$target" && pwd -P)
    mkdir -p "$outdir"
    case $(cd "$outdir" && pwd -P)/ in
      "$photos_in"/*)
        rmdir "$outdir" 2>/dev/null || :
        echo "Error: --outdir $outdir is inside $target, so its pictures would count as photos the next time; choose another" >&2
        exit 1
        ;;
    esac
    name=$(basename "$photos_in")
    sums=$(cd "$target" && find -L . -type f -exec cksum {} + | sort)
  else
    name=$(basename "$target")
    sums=$(cksum <"$target")
  fi
  crops=$outdir/crops/$name
  # The checksums are written last: without them the crops are incomplete, and if they differ, the photos have changed.
  if [ ! -e "$crops/photos.cksum" ] || [ "$(cat "$crops/photos.cksum")" != "$sums" ]; then
    rm -rf "$crops"
    "$python" "$project/dataset_tool_photo.py" --source "$target" --dest "$crops"
    printf '%s\n' "$sums" >"$crops/photos.cksum"
  fi
  target=$crops
fi

exec "$python" "$project/pti/run.py" --network "$network" --target_img "$target" --outdir "$outdir" --idx "$photos" --shapes true "$@"

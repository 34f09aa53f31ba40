# Two kinds of places to run a suite in, for comparison; sourced by the runners.
#
#   view_options "$@"  takes --io MODE, --empty and --populated out of a command line; the rest is in $rest
#   start              makes a daemon's directories and the place for $view; begin does so too
#   begin POPULATE     makes $plain, a directory on the disk, with the content that the function
#                      POPULATE makes in the directory that it is given
#   in_each_view COMMAND…  runs it for each kind of view that is wanted, with $view, a mounted view with
#                      the same content, and $place, the kind's name; fails when one of them fails
#   remount            unmounts the view and mounts it again
#   storm COMMAND…     runs it while the kernel drops its dentries and inodes over and over
#   compare FILE       shows how $results/plain/FILE and $results/$place/FILE differ; fails when they do
#
# Kinds of views: each I/O mode, with all content from the image, so that every change is a copy-up, and
# with an empty image, so that all content is in the upper directory.
# All places are on one disk: a directory of their own below $VARVE_CONFORMANCE_DIR (default $TMPDIR).
# What a suite printed stays in $results; everything else goes at the end.

varve=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../bin/varve")
scratch=
results=
populate=
place=
rest=()
modes=(cached passthrough)
contents=(populated empty)

finish() {
  local code=$?
  trap - EXIT
  [ -n "$scratch" ] || exit "$code"
  cd /
  "$varve" umount --force conformance >"$scratch/umount.log" 2>&1
  "$varve" daemon stop >>"$scratch/umount.log" 2>&1
  if mountpoint -q "$scratch/view"; then
    echo "conformance: the view is still mounted: $scratch" >&2
    exit 1
  fi
  rm -rf "$scratch"
  exit "$code"
}

view_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --io) modes=("$2"); shift ;;
      --empty | --populated) contents=("${1#--}") ;;
      *) rest+=("$1") ;;
    esac
    shift
  done
}

# make_image NAME DIRECTORY: loads it as the only layer of an image.
make_image() {
  local archive=$scratch/archive diff_id arch
  mkdir "$archive"
  tar -C "$2" --xattrs --numeric-owner -cf "$archive/layer.tar" .
  diff_id=sha256:$(sha256sum <"$archive/layer.tar" | cut -d' ' -f1)
  arch=$("$varve" version --format '{{.Client.Arch}}' 2>/dev/null || echo amd64)
  printf '{"architecture":"%s","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
    "$arch" "$diff_id" >"$archive/config.json"
  printf '[{"Config":"config.json","RepoTags":["%s:latest"],"Layers":["layer.tar"]}]' "$1" >"$archive/manifest.json"
  tar -C "$archive" -cf - manifest.json config.json layer.tar | "$varve" load --quiet -i - >/dev/null
  rm -rf "$archive"
}

start() {
  if [ "$(id -u)" -ne 0 ]; then
    echo "conformance: these suites need root" >&2
    exit 2
  fi
  scratch=$(mktemp -d "${VARVE_CONFORMANCE_DIR:-${TMPDIR:-/tmp}}/varve-conformance-XXXXXX")
  trap finish EXIT
  trap 'exit 130' INT TERM
  chmod 755 "$scratch"
  results=$(mktemp -d "${TMPDIR:-/tmp}/varve-conformance-results-XXXXXX")
  mkdir "$scratch"/{root,state,view,plain,nothing} "$results/plain"
  export VARVE_ROOT=$scratch/root VARVE_STATE=$scratch/state
  unset VARVE_SOCKET VARVE_CONFIG
  plain=$scratch/plain
  view=$scratch/view
}

begin() {
  start
  populate=$1
  "$populate" "$plain"
  make_image populated "$plain"
  make_image empty "$scratch/nothing"
}

in_each_view() {
  local mode content code=0
  for mode in "${modes[@]}"; do
    for content in "${contents[@]}"; do
      place=$mode-$content
      mkdir "$results/$place"
      "$varve" mount --quiet --io "$mode" --name conformance "$content" "$view" >/dev/null || return
      [ "$content" != empty ] || "$populate" "$view"
      "$@" || code=1
      "$varve" rm --force conformance >/dev/null || return
    done
  done
  return "$code"
}

remount() {
  # By force, since whoever made a mount namespace meanwhile has a copy of it.
  sync -f "$view"
  "$varve" umount --force conformance >/dev/null
  "$varve" mount --quiet --name conformance "$view" >/dev/null
}

storm() {
  local dropper code
  (while echo 2 >/proc/sys/vm/drop_caches; do sleep 0.02; done) &
  dropper=$!
  "$@"
  code=$?
  kill "$dropper"
  wait "$dropper" 2>/dev/null
  return "$code"
}

# tree DIRECTORY: a line for every object in it: what two equal trees agree in.
tree() {
  (cd "$1" && find . -mindepth 1 \( -type f -printf '%P %y %m %U %G %n %s ' -exec sh -c 'sha256sum <"$1"' - {} \; \) \
    -o -printf '%P %y %m %U %G %l\n') | sort
}

compare() {
  local difference
  if difference=$(diff "$results/plain/$1" "$results/$place/$1"); then
    echo "$place: $1: as on the disk"
    return 0
  fi
  printf '%s: %s differs (< disk, > view):\n%s\n' "$place" "$1" "$difference"
  return 1
}

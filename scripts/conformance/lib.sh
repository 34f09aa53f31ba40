# Two places to run a suite in, for comparison; sourced by the runners.
#
#   begin POPULATE   makes $plain (a directory on the disk) and $view (a mounted view), with the same
#                    content: what the function POPULATE makes in the directory that it is given. In
#                    the view all of it comes from the image, so every change is a copy-up.
#   remount          unmounts the view and mounts it again
#   storm COMMAND…   runs it while the kernel drops its dentries and inodes over and over
#   compare FILE     shows how $results/plain/FILE and $results/view/FILE differ; fails when they do
#
# Both places are on one disk: a directory of their own below $VARVE_CONFORMANCE_DIR (default $TMPDIR).
# What a suite printed stays in $results; everything else goes at the end.

varve=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../bin/varve")
scratch=
results=

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

# make_image DIRECTORY: loads it as the only layer of an image named lower.
make_image() {
  local archive=$scratch/archive diff_id arch
  mkdir "$archive"
  tar -C "$1" --xattrs --numeric-owner -cf "$archive/layer.tar" .
  diff_id=sha256:$(sha256sum <"$archive/layer.tar" | cut -d' ' -f1)
  arch=$("$varve" version --format '{{.Client.Arch}}' 2>/dev/null || echo amd64)
  printf '{"architecture":"%s","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
    "$arch" "$diff_id" >"$archive/config.json"
  printf '[{"Config":"config.json","RepoTags":["lower:latest"],"Layers":["layer.tar"]}]' >"$archive/manifest.json"
  tar -C "$archive" -cf - manifest.json config.json layer.tar | "$varve" load --quiet -i - >/dev/null
  rm -rf "$archive"
}

begin() {
  if [ "$(id -u)" -ne 0 ]; then
    echo "conformance: these suites need root" >&2
    exit 2
  fi
  scratch=$(mktemp -d "${VARVE_CONFORMANCE_DIR:-${TMPDIR:-/tmp}}/varve-conformance-XXXXXX")
  trap finish EXIT
  trap 'exit 130' INT TERM
  chmod 755 "$scratch"
  results=$(mktemp -d "${TMPDIR:-/tmp}/varve-conformance-results-XXXXXX")
  mkdir "$scratch"/{root,state,view,plain} "$results"/{plain,view}
  export VARVE_ROOT=$scratch/root VARVE_STATE=$scratch/state
  unset VARVE_SOCKET VARVE_CONFIG
  plain=$scratch/plain
  view=$scratch/view
  "$1" "$plain"
  make_image "$plain"
  "$varve" mount --quiet --name conformance lower "$view" >/dev/null
}

remount() {
  "$varve" umount conformance >/dev/null
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
  if difference=$(diff "$results/plain/$1" "$results/view/$1"); then
    echo "$1: the same on the disk and in the view"
    return 0
  fi
  printf '%s differs (< disk, > view):\n%s\n' "$1" "$difference"
  return 1
}

# Waiting for a program that starts; sourced by the suites.

# wait_for WHAT COMMAND…: runs the command until it succeeds, for at least half a minute.
wait_for() {
  local what=$1
  shift
  for _ in $(seq 300); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  echo "${0##*/}: $what did not come" >&2
  return 1
}

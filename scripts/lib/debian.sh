# Installing Debian packages; sourced by the set-up scripts.

# as_root COMMAND…: runs it as root, through sudo when we are not.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# missing_packages NAME…: prints those that are not installed.
missing_packages() {
  local name
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
  done
}

# install_packages NAME…: installs what is missing; does nothing, and needs no network, when all is there.
install_packages() {
  local missing
  missing=$(missing_packages "$@")
  [ -n "$missing" ] || return 0
  if ! command -v apt-get >/dev/null; then
    echo "setup: no apt-get here; install by other means:" $missing >&2
    return 1
  fi
  echo "setup: installing Debian packages:" $missing
  local log
  log=$(mktemp)
  if ! { as_root apt-get update -qq &&
    # shellcheck disable=SC2086 # one word per package
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    rm -f "$log"
    echo "setup: apt-get failed; its last lines are above" >&2
    return 1
  fi
  rm -f "$log"
}

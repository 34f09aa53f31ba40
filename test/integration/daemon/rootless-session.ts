/** A shell of an ordinary user with a varve of its own: private directories, /dev/fuse, and IDs in /etc/subuid. */

import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync } from "node:fs";
import path from "node:path";

const PROJECT = path.resolve(import.meta.dirname, "../../..");
/** "nobody": fusermount3 wants a user with a name. */
export const USER = 65534;

/** Private directories for one user, and the program where everybody can read it. */
const PRELUDE = `set -eu
home=$1 project=$2 user=$3 namespace=$4 script=$5
shift 5
mkdir -p "$home/run" "$home/program"
mount --bind "$project" "$home/program"
# Without udev the device is root's alone; Debian's udev rule gives it this mode.
mount -t tmpfs none "$home/run"
mknod -m 666 "$home/run/fuse" c 10 229
mount --bind "$home/run/fuse" /dev/fuse
mkdir -m 700 "$home/run/user" "$home/data"
chown "$user" "$home/run/user" "$home/data"
for file in /etc/subuid /etc/subgid; do
  echo nobody:100000:65536 >"$home/run/sub"
  mount --bind "$home/run/sub" "$file"
done
case $namespace in namespace) own="unshare --user --map-root-user --map-auto --mount" ;; *) own= ;; esac
exec setpriv --reuid="$user" --regid="$user" --clear-groups $own sh -eu -c '
  home=$1
  shift
  export HOME="$home/data" XDG_RUNTIME_DIR="$home/run/user" XDG_DATA_HOME="$home/data" SOURCE_DATE_EPOCH=1700000000
  export VARVE_ROOT="$home/data/root" VARVE_STATE="$home/run/user/varve" VARVE_SOCKET="$home/run/user/varve/varve.sock"
  varve() { "$home/program/bin/varve" "$@"; }
  trap "varve daemon stop" EXIT
  umask 022
'"$script" sh "$home" "$@"`;

/** Whose shell it is. */
export interface RootlessUser {
  readonly user: number;
  /** In a user namespace with the IDs that /etc/subuid gives to the user. */
  readonly isMapped?: boolean;
}

/**
 * Runs `script` (of sh, with -eu; `varve` is a function, `$HOME` a private directory).
 *
 * @param directory where the user's home is made, readable by everybody
 * @returns the home on the disk, and what was printed
 * @throws Error the script ended with another code than 0
 */
export function runRootless(
  directory: string,
  { user, isMapped }: RootlessUser,
  script: string,
  ...words: string[]
): { home: string; output: string } {
  const home = mkdtempSync(path.join(directory, "home-"));
  chmodSync(home, 0o755);
  const shell = ["--mount", "--propagation", "slave", "sh", "-c", PRELUDE, "sh"];
  const own = [home, PROJECT, String(user), isMapped === true ? "namespace" : "", script];
  const { status, stdout, stderr } = spawnSync("unshare", [...shell, ...own, ...words], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`exit code ${status}: ${stdout}${stderr}`);
  return { home: path.join(home, "data"), output: stdout };
}

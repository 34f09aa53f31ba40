/** Changes that touch everything a layer can carry; made in a mounted view by ordinary programs. */

import { shell } from "./sandbox.js";

/**
 * Changes the tree at `root`, an image with /bin/busybox, /etc and /usr (as scripts/make-image makes).
 * Afterwards it has new, changed, removed, replaced, moved, linked and special files.
 */
export function changeEverything(root: string): void {
  shell(
    `
cd "$ROOT"
mkdir -p srv/deep/er opt
echo new > srv/new
printf 'bytes' > "$(printf 'srv/\\377\\376 name')"
printf 'nl' > "$(printf 'srv/line\\nbreak')"
echo long > "srv/$(printf 'n%.0s' $(seq 255))"
ln srv/new srv/deep/hard
ln srv/new srv/hard
ln -s ../etc/passwd srv/symlink
ln -s /nowhere/at/all srv/dangling
mkfifo srv/fifo
mknod srv/null c 1 3
mknod srv/loop b 7 200
printf '#!/bin/sh\\n' > srv/setuid && chmod 4755 srv/setuid
mkdir srv/sticky && chmod 1777 srv/sticky
echo owned > srv/owned && chown 1234:70000 srv/owned
echo huge > srv/huge-owner && chown 4000000000:4000000001 srv/huge-owner
echo attr > srv/attr && setfattr -n user.colour -v blue srv/attr && setfattr -n user.binary -v 0x00ff0a srv/attr
cp /bin/true srv/capable && setcap cap_net_raw+ep srv/capable
setfattr -n user.on-directory -v yes srv/deep
truncate -s 3M srv/sparse && printf end >> srv/sparse
: > srv/empty
touch -d '2040-06-01 12:00:00.123456789 UTC' srv/far-future
touch -h -d '2001-02-03 04:05:06 UTC' srv/symlink
# Changes of what the image brought.
echo appended >> etc/passwd
rm etc/hostname
chmod 600 etc/group
mkdir -p var/tmp/x && rmdir var/tmp/x
mv home house
mkdir home && echo fresh > home/fresh
rm -rf usr/sbin && mkdir usr/sbin && echo replaced > usr/sbin/replaced
rmdir var/tmp && ln -s ../tmp var/tmp
`,
    { env: { ROOT: root } },
  );
}

/** What Go's tools cannot carry: they read a time before 1970 as 1970. */
export function changeBeforeTheEpoch(root: string): void {
  shell("touch -d '1960-01-01 00:00:00.5 UTC' \"$ROOT/srv/before-the-epoch\"", {
    env: { ROOT: root },
  });
}

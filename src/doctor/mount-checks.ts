/** Whether and how well this machine mounts: /dev/fuse, the kernel's features, the rights of this user. */

import { existsSync } from "node:fs";
import { release, userInfo } from "node:os";
import { dirname, join } from "node:path";
import {
  FUSE_HAS_RESEND,
  FUSE_OLDEST_MINOR_VERSION,
  FUSE_OVER_IO_URING,
  FUSE_PASSTHROUGH,
} from "../fuse/constants.js";
import type { InitOffer } from "../fuse/negotiation.js";
import { CPU_LATENCY_DEVICE } from "../fuse/wake-ups.js";
import { addonPath } from "../system/addon.js";
import { isWritable } from "../system/programs.js";
import { type Finding, finding, programOr, type Verdict } from "./finding.js";
import { askKernel } from "./kernel-offer.js";
import { type Surroundings, textOf } from "./surroundings.js";

const AREA = "Mounting";

/** All of them; the later ones need what the earlier ones find. */
export async function checkMounting(surroundings: Surroundings): Promise<Finding[]> {
  const { privileged } = surroundings;
  const found: Finding[] = [finding(AREA, "privileges", privileges(privileged))];
  if (!privileged) {
    found.push(finding(AREA, "fusermount3", helper()));
    found.push(finding(AREA, "other users", otherUsers(join(surroundings.etc, "fuse.conf"))));
    found.push(finding(AREA, "other owners", subordinateIds(join(surroundings.etc, "subuid"))));
  }
  const fuse = device(privileged);
  found.push(finding(AREA, "/dev/fuse", fuse));
  if (fuse.status === "ok") found.push(...(await kernelFeatures(privileged)));
  found.push(finding(AREA, "quick wake-ups", wakeUps()));
  return found;
}

function privileges(privileged: boolean): Verdict {
  if (privileged) return { status: "ok", found: "root" };
  return {
    status: "limited",
    found: `user ${process.geteuid?.() ?? "?"}, without CAP_SYS_ADMIN on the host`,
    cost: "mounts go through fusermount3, without passthrough; everything in a view is yours, and there are no devices",
    remedy: "run as root where that matters",
  };
}

const helper = () =>
  programOr("fusermount3", {
    status: "failed",
    found: "not on PATH",
    cost: "users other than root cannot mount",
    remedy: "apt-get install fuse3",
  });

function otherUsers(file: string): Verdict {
  if (/^\s*user_allow_other\s*$/m.test(textOf(file) ?? "")) {
    return { status: "ok", found: `${file} has user_allow_other` };
  }
  return {
    status: "note",
    found: `${file} has no user_allow_other`,
    cost: "only the user who mounts a view sees what is in it, not even root does",
    remedy: `echo user_allow_other >> ${file}`,
  };
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // A number without a name.
    return String(process.geteuid?.());
  }
}

/** Whether this user can have a user namespace with more IDs than its own, subuid(5). */
export function subordinateIds(file: string, user: string = userName()): Verdict {
  const cost =
    "owners of files in views cannot be changed (those of the image are kept for commits)";
  const isListed = (textOf(file) ?? "")
    .split("\n")
    .some((line) => line.startsWith(`${user}:`) || line.startsWith(`${process.geteuid?.()}:`));
  if (!isListed) {
    return {
      ...{ status: "note", cost, found: `${file} has no IDs for ${user}` },
      remedy: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${user}`,
    };
  }
  return programOr("newuidmap", {
    ...{ status: "note", cost, found: "newuidmap is not on PATH" },
    remedy: "apt-get install uidmap",
  });
}

function device(privileged: boolean): Verdict {
  if (!existsSync("/dev/fuse")) {
    return {
      status: "failed",
      found: "missing",
      cost: "nothing can be mounted",
      remedy: "modprobe fuse (in a container: --device /dev/fuse --cap-add SYS_ADMIN)",
    };
  }
  if (privileged || isWritable("/dev/fuse")) return { status: "ok", found: "open to this user" };
  return {
    status: "failed",
    found: "not open to this user",
    cost: "nothing can be mounted",
    remedy: "chmod 666 /dev/fuse, as root",
  };
}

async function kernelFeatures(privileged: boolean): Promise<Finding[]> {
  let offer: InitOffer;
  try {
    offer = await askKernel(privileged);
  } catch (error) {
    return [
      finding(AREA, "a mount", {
        status: "failed",
        found: (error as Error).message,
        cost: "nothing can be mounted",
        remedy: "in a container: --device /dev/fuse --cap-add SYS_ADMIN",
      }),
    ];
  }
  return describeOffer(offer, privileged);
}

/** What an offer means. */
export function describeOffer(offer: InitOffer, privileged: boolean): Finding[] {
  return [
    finding(AREA, "kernel", kernelVersion(offer)),
    finding(AREA, "passthrough", passthrough(offer, privileged)),
    finding(AREA, "restart of the daemon", survival(offer)),
    finding(AREA, "io_uring", {
      status: "note",
      found:
        (offer.flags2 & FUSE_OVER_IO_URING) === 0
          ? "not offered for FUSE (Linux 6.14 with fuse.enable_uring=1)"
          : "offered for FUSE",
      cost: "none: varve reads requests from /dev/fuse",
    }),
  ];
}

function kernelVersion({ major, minor }: InitOffer): Verdict {
  const found = `Linux ${release()}, FUSE ${major}.${minor}`;
  if (major > 7 || minor >= FUSE_OLDEST_MINOR_VERSION) return { status: "ok", found };
  return {
    status: "failed",
    found,
    cost: `varve needs FUSE 7.${FUSE_OLDEST_MINOR_VERSION}`,
    remedy: "a newer kernel",
  };
}

function passthrough({ flags2 }: InitOffer, privileged: boolean): Verdict {
  const cost =
    "file data goes through the daemon once and is cached per view, so that views of one image do not share it in memory";
  if ((flags2 & FUSE_PASSTHROUGH) === 0) {
    return {
      status: "limited",
      found: "not offered by this kernel",
      cost,
      remedy:
        "Linux 6.9 or newer with CONFIG_FUSE_PASSTHROUGH (Debian 12: linux-image-amd64 from bookworm-backports)",
    };
  }
  if (privileged) return { status: "ok", found: "offered (mount --io passthrough)" };
  return { status: "limited", found: "for root only", cost, remedy: "run the daemon as root" };
}

function survival({ flags2 }: InitOffer): Verdict {
  const keeper = join(dirname(addonPath), "varve-keeper");
  const cost = "when the daemon dies, its views end with it and are mounted again by the next one";
  if ((flags2 & FUSE_HAS_RESEND) === 0) {
    const found = "requests cannot be asked for again";
    return { status: "limited", found, cost, remedy: "Linux 6.9 or newer" };
  }
  if (existsSync(keeper)) return { status: "ok", found: "programs in views only wait for it" };
  return { status: "limited", found: `no ${keeper}`, cost, remedy: "npm run build:native" };
}

function wakeUps(): Verdict {
  if (isWritable(CPU_LATENCY_DEVICE)) return { status: "ok", found: CPU_LATENCY_DEVICE };
  return {
    status: "limited",
    found: `${CPU_LATENCY_DEVICE} is not open to this user`,
    cost: "on an otherwise idle machine every request wakes a sleeping CPU: up to four times as slow",
    remedy: "run as root, or give the device to a group with a udev rule",
  };
}

/** The programs and libraries that varve uses where they are there. */

import { availableParallelism } from "node:os";
import { fastestGunzip, type Gunzipper } from "../layers/compression.js";
import { native } from "../system/addon.js";
import { type Finding, finding, programOr, type Verdict } from "./finding.js";

const AREA = "Unpacking and building";

/** All of them. */
export function checkPrograms(): Finding[] {
  return [
    finding(AREA, "Node.js", node()),
    finding(AREA, "gzip layers", gunzip(fastestGunzip())),
    finding(AREA, "digests", digests()),
    finding(AREA, "zstd layers", zstd()),
    finding(AREA, "build steps", runc()),
  ];
}

function node(): Verdict {
  const cpus = availableParallelism();
  return { status: "ok", found: `${process.version}, ${cpus} CPU${cpus === 1 ? "" : "s"}` };
}

/** What an inflater means. */
export function gunzip(gunzipper: Gunzipper): Verdict {
  // The addon looks for the library when it is loaded.
  const remedy = "apt-get install libisal2, and start the daemon again";
  switch (gunzipper.kind) {
    case "isa-l":
      return { status: "ok", found: "ISA-L (igzip's library)" };
    case "program":
      return {
        status: "limited",
        found: `no ISA-L; ${gunzipper.path}`,
        cost: "unpacking takes about twice the time",
        remedy,
      };
    case "node:zlib":
      return {
        status: "limited",
        found: "neither ISA-L nor unpigz; Node's own zlib",
        cost: "unpacking takes more than twice the time",
        remedy,
      };
  }
}

function digests(): Verdict {
  if (native.StreamReader.canHash)
    return { status: "ok", found: "OpenSSL of Node.js, off the main thread" };
  return {
    status: "limited",
    found: "this Node.js does not export its OpenSSL",
    cost: "layers are hashed on the thread that unpacks them, which takes longer",
    remedy: "an official Node.js binary",
  };
}

const zstd = () =>
  programOr("zstd", {
    status: "limited",
    found: "no zstd on PATH",
    cost: "layers compressed with zstd cannot be unpacked or made",
    remedy: "apt-get install zstd",
  });

const runc = () =>
  programOr("runc", {
    status: "note",
    found: "no runc on PATH",
    cost: "build-step --run does not work",
    remedy: "apt-get install runc",
  });

/**
 * Platforms: "os/architecture[/variant]", and which images run on which hosts.
 *
 * The rules are those of containerd's platform matcher, so that the same index gives the same image
 * in every tool.
 */

import { arch } from "node:os";
import { InvalidArgumentError } from "../system/errors.js";

/** A platform in normal form (GOOS and GOARCH names; a variant only where it says something). */
export type Platform = {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
};

const SYSTEMS = new Set(
  "aix android darwin dragonfly freebsd illumos ios js linux netbsd openbsd plan9 solaris wasip1 windows".split(
    " ",
  ),
);

const ARCHITECTURES = new Set(
  (
    "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc ppc64 ppc64le " +
    "riscv riscv64 s390 s390x sparc sparc64 wasm"
  ).split(" "),
);

const SYNONYMS = new Map<string, readonly [architecture: string, variant: string]>([
  ["i386", ["386", ""]],
  ["x86_64", ["amd64", ""]],
  ["x86-64", ["amd64", ""]],
  ["aarch64", ["arm64", ""]],
  ["armhf", ["arm", "v7"]],
  ["armel", ["arm", "v6"]],
]);

/** Node's names of architectures where they differ from Go's. */
const NODE_ARCHITECTURES = new Map<string, string>([
  ["ia32", "386"],
  ["x64", "amd64"],
  ["ppc64", "ppc64le"],
  ["mipsel", "mipsle"],
]);

/** The platform of this machine. */
export function hostPlatform(): Platform {
  const architecture = NODE_ARCHITECTURES.get(arch()) ?? arch();
  return normalizePlatform({ os: "linux", architecture });
}

/** Brings synonyms ("x86_64", "arm64/v8", "arm") to the one spelling used in comparisons. */
export function normalizePlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase();
  const spelled = platform.architecture.toLowerCase();
  const synonym = SYNONYMS.get(spelled);
  const architecture = synonym?.[0] ?? spelled;
  const given = (platform.variant ?? "").toLowerCase();
  const variant = normalizeVariant(architecture, synonym?.[1] || given);
  return {
    os: os === "macos" ? "darwin" : os,
    architecture,
    ...(variant === "" ? {} : { variant }),
  };
}

function normalizeVariant(architecture: string, variant: string): string {
  const spelled = /^[0-9]/.test(variant) ? `v${variant}` : variant;
  if (architecture === "arm") return spelled === "" ? "v7" : spelled;
  if (architecture === "arm64") return spelled === "v8" || spelled === "v8.0" ? "" : spelled;
  if (architecture === "amd64") return spelled === "v1" ? "" : spelled;
  return spelled;
}

/**
 * Parses "os", "architecture", "os/architecture" or "os/architecture/variant". What is not given is
 * the host's.
 *
 * @throws InvalidArgumentError
 */
export function parsePlatform(text: string): Platform {
  const parts = text.split("/");
  if (parts.length > 3 || parts.some((part) => !/^[A-Za-z0-9_.-]+$/.test(part))) {
    throw new InvalidArgumentError(
      `platform ${JSON.stringify(text)}: want os/architecture or os/architecture/variant, ` +
        `for example "linux/amd64" or "linux/arm/v7"`,
    );
  }
  const [first, second, third] = parts as [string, string?, string?];
  if (second !== undefined) {
    return normalizePlatform({
      os: first,
      architecture: second,
      ...(third === undefined ? {} : { variant: third }),
    });
  }
  const host = hostPlatform();
  const alone = normalizePlatform({ os: host.os, architecture: first });
  if (ARCHITECTURES.has(alone.architecture)) return alone;
  const { os } = normalizePlatform({ os: first, architecture: host.architecture });
  if (SYSTEMS.has(os)) return { ...host, os };
  throw new InvalidArgumentError(
    `platform ${JSON.stringify(text)}: neither a known system nor a known architecture`,
  );
}

/** "linux/arm/v7". */
export function formatPlatform(platform: Platform): string {
  const base = `${platform.os}/${platform.architecture}`;
  return platform.variant === undefined ? base : `${base}/${platform.variant}`;
}

/** True when both name the same platform, however spelled. */
export function isSamePlatform(a: Platform, b: Platform): boolean {
  return formatPlatform(normalizePlatform(a)) === formatPlatform(normalizePlatform(b));
}

/**
 * How well an image suits a wanted platform: 0 is exact, more is a fallback (an older variant, the
 * 32-bit mode of the same processor), undefined does not run there.
 */
export function platformRank(wanted: Platform, candidate: Platform): number | undefined {
  const text = formatPlatform(normalizePlatform(candidate));
  const rank = compatiblePlatforms(wanted).map(formatPlatform).indexOf(text);
  return rank < 0 ? undefined : rank;
}

/** Everything that runs on `wanted`, best first. */
export function compatiblePlatforms(wanted: Platform): Platform[] {
  const { os, architecture, variant } = normalizePlatform(wanted);
  const make = (name: string, variants: readonly string[]): Platform[] =>
    variants.map((v) => normalizePlatform({ os, architecture: name, variant: v }));
  switch (architecture) {
    case "amd64":
      return [...make("amd64", variantsDownTo(1, variant ?? "v1")), { os, architecture: "386" }];
    case "arm":
      return make("arm", variantsDownTo(5, variant ?? "v7"));
    case "arm64":
      return [
        ...make("arm64", arm64Variants(variant ?? "v8")),
        ...make("arm", variantsDownTo(5, "v8")),
      ];
    default:
      return [normalizePlatform(wanted)];
  }
}

/** "v7" down to 5: v7, v6, v5. A variant that is no number stands alone. */
function variantsDownTo(lowest: number, variant: string): string[] {
  const level = /^v([0-9]{1,2})$/.exec(variant)?.[1];
  if (level === undefined) return [variant];
  const variants: string[] = [variant];
  for (let next = Number(level) - 1; next >= lowest; next--) variants.push(`v${next}`);
  return variants;
}

/** "v8.2": v8.2, v8.1, v8. A v9.N processor also runs v8.(N+5), as Arm defines. */
function arm64Variants(variant: string): string[] {
  const match = /^v([89])(?:\.([0-9]{1,2}))?$/.exec(variant);
  if (match === null) return [variant];
  const minor = Number(match[2] ?? 0);
  const series = (major: number, from: number): string[] =>
    Array.from({ length: from + 1 }, (_, step) => {
      const value = from - step;
      return value === 0 ? `v${major}` : `v${major}.${value}`;
    });
  return match[1] === "9" ? [...series(9, minor), ...series(8, minor + 5)] : series(8, minor);
}

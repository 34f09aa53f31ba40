/** Platforms: "os/architecture[/variant]". */

/** A platform in normal form (GOOS and GOARCH names; variant only where it says something). */
export type Platform = {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
};

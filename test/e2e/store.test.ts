/** The store's commands as a person uses them: build-step, pin, df, prune, lease, events. */

import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeLayout } from "../integration/daemon/small-image.js";
import { Sandbox } from "./sandbox.js";

const sandbox = new Sandbox("store");

beforeAll(() => {
  sandbox.varve("load", "-q", "-i", makeLayout(sandbox.path("layout")));
});

afterAll(() => sandbox.dispose());

function derive(name: string): void {
  const target = sandbox.mount("small", "maker");
  writeFileSync(join(target, "data/own"), name);
  sandbox.varve("commit", "-q", "maker", name);
  sandbox.varve("rm", "-f", "maker");
}

describe("build-step", () => {
  it("runs steps in the order of the command line, and prints the last image's ID", () => {
    writeFileSync(sandbox.path("greeting"), "hello\n");
    const steps = ["--copy", `${sandbox.path("greeting")}:/data/`, "--env", "WHO=you and me"];
    const flags = ["--run", "/bin/sh", "-c", 'read g < /data/greeting; echo "$g $WHO" > /data/out'];
    const first = sandbox.try("build-step", "small", ...steps, ...flags, "--commit", "said:1");
    expect(first).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^sha256:[0-9a-f]{64}\n$/),
    });
    expect(first.stderr).toContain("STEP 1/3: COPY greeting /data/\n");
    expect(first.stderr).toContain('STEP 2/3: ENV WHO="you and me"\n');
    const target = sandbox.mount("said:1", "said");
    expect(readFileSync(join(target, "data/out"), "utf8")).toBe("hello you and me\n");
    sandbox.varve("rm", "-f", "said");
    const again = sandbox.try("build-step", "small", ...steps, ...flags, "--commit", "said:1");
    expect(again.stdout).toBe(first.stdout);
    expect(again.stderr.match(/using cache/g)).toHaveLength(3);
    expect(
      sandbox.varve("history", "said:1", "--no-trunc", "--format", "{{.CreatedBy}}"),
    ).toContain('RUN ["/bin/sh","-c",');
  });

  it("runs a command behind -- without a shell, prints what it prints, and fails as it does", () => {
    const { status, stderr } = sandbox.try("build-step", "small", "--", "/bin/cat", "/no such");
    expect(status).toBe(1);
    expect(stderr).toContain("can't open '/no such'");
    expect(stderr).toContain('RUN ["/bin/cat","/no such"]: the command ended with 1');
    expect(sandbox.try("build-step", "small", "-q", "--run", "echo loud; exit 4").stderr).toBe(
      "varve: build step: RUN /bin/sh -c echo loud; exit 4: the command ended with 4\n",
    );
    expect(sandbox.try("build-step", "small").status).toBe(2);
    expect(sandbox.try("build-step", "small", "--copy", "x").status).toBe(2);
    sandbox.varve("rmi", "said:1");
  });

  it("sets user and labels, and dates image and files as it is told", () => {
    const steps = [
      "--label",
      "note=it's mine",
      "--user",
      "7:8",
      "--run",
      "/bin/sh",
      "-c",
      ": > /tmp/f",
    ];
    const flags = ["--quiet", "--timestamp", "1000000000", "--commit"];
    const id = sandbox.varve("build-step", "small", ...steps, ...flags, "dated:1");
    const format = '{{.Config.User}} {{index .Config.Labels "note"}} {{.Created}}';
    expect(sandbox.varve("inspect", "dated:1", "--format", format)).toBe(
      "7:8 it's mine 2001-09-09T01:46:40Z",
    );
    const { uid, gid, mtimeMs } = statSync(join(sandbox.mount("dated:1", "look"), "tmp/f"));
    expect([uid, gid, mtimeMs]).toEqual([7, 8, 1_000_000_000_000]);
    sandbox.varve("rm", "-f", "look");
    // Another maker's would be another image.
    const again = [...steps, "--no-cache", ...flags, "dated:2"];
    expect(sandbox.varve("build-step", "small", ...again)).toBe(id);
    sandbox.varve("rmi", "dated:1", "dated:2");
    expect(sandbox.try("build-step", "small", "--label", "note").status).toBe(2);
    expect(sandbox.try("build-step", "small", "--timestamp", "soon", "--run", "x").status).toBe(2);
  });
});

describe("pin", () => {
  it("is shown in the list, asked about by rmi, and taken away again", () => {
    derive("pinned:1");
    expect(sandbox.varve("images")).not.toContain("PINNED");
    expect(sandbox.varve("pin", "pinned:1")).toBe("pinned:1");
    const lines = sandbox.varve("images").split("\n");
    expect(lines[0]).toMatch(/SIZE +PINNED$/);
    expect(lines.find((line) => line.startsWith("pinned"))).toMatch(/true$/);
    expect(lines.find((line) => line.startsWith("small"))).toMatch(/false$/);
    const refused = sandbox.try("rmi", "pinned:1");
    expect(refused).toMatchObject({ status: 1 });
    expect(refused.stderr).toContain("is pinned; unpin first, or force");
    expect(sandbox.varve("images", "-f", "pinned=true", "--format", "{{.Repository}}")).toBe(
      "pinned",
    );
    expect(sandbox.varve("unpin", "pinned:1")).toBe("pinned:1");
    expect(sandbox.varve("rmi", "pinned:1")).toContain("Untagged: pinned:1");
  });
});

describe("df", () => {
  it("prints docker's table, one image a line with -v, and bytes as JSON", () => {
    const lines = sandbox.varve("df").split("\n");
    expect(lines[0]).toMatch(/^TYPE +TOTAL +ACTIVE +SIZE +RECLAIMABLE$/);
    expect(lines.map((line) => line.split(/ {2,}/)[0])).toEqual([
      ...["TYPE", "Images", "Unpacked layers", "Views", "Build cache"],
    ]);
    expect(sandbox.varve("df", "-v")).toMatch(/SHARED SIZE +UNIQUE SIZE.*\nsmall +latest/s);
    const data = JSON.parse(sandbox.varve("df", "-v", "--format", "json")) as {
      Images: { RepoTags: string[]; Content: number; SharedSize: number; UniqueSize: number }[];
    };
    const [small] = data.Images;
    expect(small!.RepoTags).toEqual(["small:latest"]);
    expect(small!.SharedSize).toBe(0);
    expect(small!.UniqueSize).toBeGreaterThanOrEqual(small!.Content);
    expect(sandbox.try("df", "-v", "--format", "{{.ID}}").status).toBe(2);
  });
});

describe("prune", () => {
  it("asks before it removes; without a terminal it wants --force", () => {
    const refused = sandbox.try("prune");
    expect(refused.status).toBe(2);
    expect(refused.stderr).toContain("use --force (or --dry-run)");
  });

  it("tells what would go, then removes just that", () => {
    derive("gone:1");
    sandbox.varve("lease", "create", "--id", "keep", "small");
    const plan = sandbox.varve("prune", "--all", "--dry-run").split("\n");
    expect(plan[0]).toBe("Untagged: gone:1");
    expect(plan.at(-1)).toMatch(/^Space to be reclaimed: \d/);
    const done = sandbox.varve("prune", "-af").split("\n");
    expect(done.slice(0, -1)).toEqual(plan.slice(0, -1));
    expect(done.at(-1)).toBe(
      plan.at(-1)!.replace("Space to be reclaimed", "Total reclaimed space"),
    );
    expect(sandbox.varve("images", "--format", "{{.Repository}}")).toBe("small");
    sandbox.varve("lease", "rm", "keep");
  });
});

describe("lease", () => {
  it("is made, listed and removed", () => {
    const flags = ["--expires", "2h", "--label", "by=me"];
    const id = sandbox.varve("lease", "create", ...flags, "small");
    const [header, line] = sandbox.varve("lease", "ls").split("\n");
    expect(header).toMatch(/^LEASE ID +CREATED +EXPIRES +RESOURCES +LABELS$/);
    expect(line).toContain(id);
    expect(line).toMatch(/in about an hour +content\/sha256:[0-9a-f]{64} +by=me$/);
    expect(sandbox.varve("lease", "ls", "-q")).toBe(id);
    expect(sandbox.varve("lease", "rm", id.slice(0, 8))).toBe(id.slice(0, 8));
    expect(sandbox.varve("lease", "ls", "-q")).toBe("");
    expect(sandbox.try("lease", "create", "--expires", "soon", "small").status).toBe(2);
  });
});

describe("events", () => {
  it("are JSON lines of the past and of the present, until a time", () => {
    sandbox.varve("tag", "small", "seen:1");
    const flags = ["--since", "1h", "--until", "0s", "-f", "event=tag", "-f", "image=seen"];
    const [event, ...others] = sandbox
      .varve("events", ...flags)
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(others).toEqual([]);
    expect(event).toMatchObject({
      Type: "image",
      Action: "tag",
      Actor: { Attributes: { name: "docker.io/library/seen:1" } },
      scope: "local",
      time: expect.any(Number),
    });
    const template = "{{.Action}} {{.Actor.Attributes.name}}";
    expect(sandbox.varve("events", ...flags, "--format", template)).toBe(
      "tag docker.io/library/seen:1",
    );
    expect(sandbox.try("events", "-f", "colour=red").stderr).toContain("type, event, image, view");
  });
});

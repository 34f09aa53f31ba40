import { describe, expect, it } from "vitest";
import { bundleConfig } from "../../../src/images/bundle-config.js";
import { type ContainerUser, resolveUser } from "../../../src/images/container-user.js";
import { parseConfig } from "../../../src/images/manifest.js";

const PASSWD = `root:x:0:0:root:/root:/bin/sh
# a comment
app:x:1000:1001:App:/srv/app:/bin/sh
broken line
web:x:33:33::/var/www:
`;
const GROUP = `root:x:0:
staff:x:50:app,web
app:x:1001:
games:x:60:app
`;

const files: Record<string, string> = { "/etc/passwd": PASSWD, "/etc/group": GROUP };
const readFile = async (path: string) =>
  files[path] === undefined ? undefined : Buffer.from(files[path]);
const readNothing = async () => undefined;

describe("an image's user", () => {
  it.each<[string, ContainerUser]>([
    ["", { uid: 0, gid: 0, additionalGids: [], home: "/root" }],
    ["app", { uid: 1000, gid: 1001, additionalGids: [50, 60], home: "/srv/app" }],
    ["1000", { uid: 1000, gid: 1001, additionalGids: [50, 60], home: "/srv/app" }],
    ["app:staff", { uid: 1000, gid: 50, additionalGids: [], home: "/srv/app" }],
    ["app:7", { uid: 1000, gid: 7, additionalGids: [], home: "/srv/app" }],
    ["4711", { uid: 4711, gid: 0, additionalGids: [], home: "/" }],
    ["4711:4712", { uid: 4711, gid: 4712, additionalGids: [], home: "/" }],
    [":staff", { uid: 0, gid: 50, additionalGids: [], home: "/root" }],
  ])("%j", async (spec, user) => {
    expect(await resolveUser(spec, readFile)).toEqual(user);
  });

  it.each([
    ["nobody-knows", "FAILED_PRECONDITION"],
    ["app:nobody-knows", "FAILED_PRECONDITION"],
    ["99999999999", "CORRUPT_DATA"],
    ["0:4294967295", "CORRUPT_DATA"],
  ])("%j is refused", async (spec, code) => {
    await expect(resolveUser(spec, readFile)).rejects.toThrow(expect.objectContaining({ code }));
  });

  it("may be a number in an image without /etc/passwd, but no name", async () => {
    expect(await resolveUser("5:6", readNothing)).toMatchObject({ uid: 5, gid: 6, home: "/" });
    await expect(resolveUser("app", readNothing)).rejects.toThrow(/not in its \/etc\/passwd/);
  });
});

const config = (settings: object) =>
  parseConfig(
    Buffer.from(
      JSON.stringify({
        os: "linux",
        architecture: "amd64",
        config: settings,
        rootfs: { type: "layers", diff_ids: [] },
      }),
    ),
    "config",
  );

const bundle = (settings: object, readOnly = false) =>
  bundleConfig({
    config: config(settings),
    rootPath: "/run/varve/views/x/rootfs",
    readOnly,
    hostname: "box",
    readFile,
  });

describe("a bundle", () => {
  it("runs the image's command as its user, where and how it says", async () => {
    const made = await bundle({
      Entrypoint: ["/init", "-x"],
      Cmd: ["serve"],
      Env: ["A=1", "PATH=/opt"],
      WorkingDir: "/srv",
      User: "app",
      StopSignal: "SIGINT",
      Labels: { maintainer: "me" },
      ExposedPorts: { "80/tcp": {} },
    });
    expect(made).toMatchObject({
      process: {
        terminal: false,
        user: { uid: 1000, gid: 1001, additionalGids: [50, 60] },
        args: ["/init", "-x", "serve"],
        env: ["A=1", "PATH=/opt", "HOME=/srv/app"],
        cwd: "/srv",
      },
      root: { path: "/run/varve/views/x/rootfs", readonly: false },
      hostname: "box",
      annotations: {
        maintainer: "me",
        "org.opencontainers.image.stopSignal": "SIGINT",
        "org.opencontainers.image.exposedPorts": "80/tcp",
      },
    });
  });

  it("has a shell, a PATH and a home where the image says nothing", async () => {
    const { process } = (await bundle({})) as { process: object };
    expect(process).toMatchObject({
      args: ["/bin/sh"],
      cwd: "/",
      env: [expect.stringMatching(/^PATH=.*\/bin$/), "HOME=/root"],
    });
  });

  it("gives capabilities to root alone", async () => {
    type Made = { process: { capabilities: Record<string, string[]> } };
    const root = ((await bundle({})) as Made).process.capabilities;
    const user = ((await bundle({ User: "app" })) as Made).process.capabilities;
    expect(root.effective).toContain("CAP_CHOWN");
    expect(root.effective).not.toContain("CAP_SYS_ADMIN");
    expect(user.effective).toEqual([]);
    expect(user.bounding).toEqual(root.bounding);
  });

  it("of a read-only view has a read-only root", async () => {
    expect(await bundle({}, true)).toMatchObject({ root: { readonly: true } });
  });
});

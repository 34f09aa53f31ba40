import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  closeSync,
  existsSync,
  fsync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { promisify } from "node:util";
import { afterEach, expect, test } from "vitest";
import { sys } from "../../../src/system/addon.js";
import { toBytes } from "../../../src/system/bytes.js";
import { AT_FDCWD } from "../../../src/system/constants.js";
import { MemoryServer, mountsUnder } from "./memory-mount.js";

let servers: MemoryServer[] = [];

async function start(count = 1): Promise<MemoryServer> {
  const server = await MemoryServer.start(count);
  servers.push(server);
  return server;
}

afterEach(async () => {
  for (const server of servers) await server.stop();
  servers = [];
});

function errorCode(action: () => unknown): string | undefined {
  try {
    action();
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
  return undefined;
}

/** Looks again until `isDone`, for what the kernel does in its own time. */
async function eventually(isDone: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isDone())) await new Promise((resolve) => setTimeout(resolve, 20));
}

test("a handler that throws costs its caller EIO, and the mount lives on", async () => {
  const server = await start();
  expect(errorCode(() => statSync(server.path("fault-throw")))).toBe("EIO");
  expect(errorCode(() => statSync(server.path("fault-throw")))).toBe("EIO");
  // An errno that the kernel would refuse to take.
  expect(errorCode(() => statSync(server.path("fault-errno")))).toBe("EIO");
  writeFileSync(server.path("after"), "fine");
  expect(readFileSync(server.path("after"), "utf8")).toBe("fine");
  const { warnings } = await server.events();
  expect(warnings).toHaveLength(2);
  expect(warnings[1]).toContain("-600");
  expect(warnings[0]).toContain("LOOKUP failed");
  expect(warnings[0]).toContain("a handler that throws");
  expect(warnings[0]).toContain("at MemoryFileSystem.lookup");
});

test("a read that claims more than was asked is EIO, not a hanging reader", async () => {
  const server = await start();
  const file = server.path("liar");
  writeFileSync(file, "content");
  const name = toBytes("user.fault-long-read");
  sys.setxattrat(AT_FDCWD, toBytes(file), name, Buffer.from("1"), 0);
  execFileSync("sh", ["-c", "echo 1 > /proc/sys/vm/drop_caches"]);
  const direct = ["dd", [`if=${file}`, "iflag=direct", "bs=4096", "of=/dev/null"]] as const;
  expect(() => execFileSync(...direct, { stdio: "ignore" })).toThrow();
});

test("a promise that fails is EIO", async () => {
  const server = await start();
  const fd = openSync(server.target, "r");
  await expect(promisify(fsync)(fd)).rejects.toMatchObject({ code: "EIO" });
  closeSync(fd);
});

test("while an fsync waits for the disk, other requests are served", async () => {
  const server = await start(2);
  const [target] = server.targets;
  await server.ask({ kind: "holdSyncs", target: target! });
  const fd = openSync(server.path("slow"), "w");
  writeSync(fd, "x");
  let isSynced = false;
  const synced = promisify(fsync)(fd).finally(() => {
    isSynced = true;
  });
  await eventually(async () => (await server.report()).calls.fsync === 1);
  writeFileSync(server.path("meanwhile"), "served");
  writeFileSync(`${server.targets[1]}/meanwhile`, "served");
  expect(isSynced).toBe(false);
  await server.ask({ kind: "releaseSyncs", target: target!, result: -28 });
  await expect(synced).rejects.toMatchObject({ code: "ENOSPC" });
  closeSync(fd);
});

const ALARMS =
  "signal.signal(signal.SIGALRM, lambda *_: 0); signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)";

test.each([
  ["goes when it is killed", ""],
  ["stays while signals come, and goes when it is killed", ALARMS],
])("a caller whose fsync waits for the disk %s", async (_what, alarms) => {
  const server = await start();
  const { target } = server;
  await server.ask({ kind: "holdSyncs", target });
  const open = `os.open("${server.path("slow")}", os.O_CREAT | os.O_WRONLY)`;
  const script = `import os, signal\nfd = ${open}\n${alarms}\nos.fsync(fd)`;
  const caller = spawn("python3", ["-c", script], { stdio: "ignore" });
  const gone = once(caller, "exit");
  try {
    await eventually(async () => (await server.report()).calls.fsync === 1);
    if (alarms !== "") {
      const status = () => readFileSync(`/proc/${caller.pid}/status`, "latin1");
      await eventually(() => /^ShdPnd:.*2000$/m.test(status()));
      // What the kernel says of signals is heard before this is.
      expect(errorCode(() => statSync(server.path("missing")))).toBe("ENOENT");
    }
    caller.kill("SIGKILL");
    expect(await gone).toEqual([null, "SIGKILL"]);
    expect((await server.report()).calls.fsync).toBe(1);
  } finally {
    await server.ask({ kind: "releaseSyncs", target, result: 0 });
    caller.kill("SIGKILL");
    await gone;
  }
});

test("the file system is destroyed only after the answers that it still owes", async () => {
  const server = await start();
  const { target } = server;
  await server.ask({ kind: "holdSyncs", target });
  const fd = openSync(server.path("slow"), "w");
  const synced = promisify(fsync)(fd);
  const refused = expect(synced).rejects.toThrow();
  await eventually(async () => (await server.report()).calls.fsync === 1);
  await server.ask({ kind: "unmount", target, force: true });
  await refused;
  // Closes it all the same.
  expect(errorCode(() => closeSync(fd))).toBe("ENOTCONN");
  expect((await server.report()).isDestroyed).toBe(false);
  await server.ask({ kind: "releaseSyncs", target, result: 0 });
  expect((await server.report()).isDestroyed).toBe(true);
  expect((await server.events()).ends).toEqual([target]);
});

test("unmounting ends the session: destroyed once, nothing mounted, and again is no error", async () => {
  const server = await start();
  const { target } = server;
  writeFileSync(server.path("file"), "x");
  await server.ask({ kind: "unmount", target, force: false });
  expect(mountsUnder(server.directory)).toEqual([]);
  const { ends } = await server.events();
  expect(ends).toEqual([target]);
  const report = await server.report();
  expect(report.isDestroyed).toBe(true);
  expect(report.calls.destroy).toBe(1);
  await server.ask({ kind: "unmount", target, force: false });
  expect((await server.events()).ends).toEqual([target]);
});

test("umount(8) from outside ends the session as well", async () => {
  const server = await start();
  execFileSync("umount", [server.target]);
  await eventually(async () => (await server.events()).ends.length === 1);
  expect((await server.report()).isDestroyed).toBe(true);
});

test("a mount in use is not unmounted, and the error says so; force takes it away", async () => {
  const server = await start();
  const { target } = server;
  const fd = openSync(server.path("held"), "w+");
  writeSync(fd, "kept");
  const refusal = server.ask({ kind: "unmount", target, force: false });
  await expect(refusal).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
  await expect(refusal).rejects.toThrow(/in use.*force/);
  expect(readFileSync(server.path("held"), "utf8")).toBe("kept");

  await server.ask({ kind: "unmount", target, force: true });
  expect(mountsUnder(server.directory)).toEqual([]);
  expect((await server.events()).ends).toEqual([target]);
  expect(["ENOTCONN", "ECONNABORTED", "EIO"]).toContain(errorCode(() => writeSync(fd, "lost")));
  closeSync(fd);
});

test("what is dirty in a mapping reaches the file system before a forced unmount", async () => {
  const server = await start();
  writeFileSync(server.path("mapped"), Buffer.alloc(4096, 65));
  const script = `
import mmap, os, sys, time
fd = os.open("${server.path("mapped")}", os.O_RDWR)
shared = mmap.mmap(fd, 4096)
shared[0:4] = b"DONE"
print("dirty", flush=True)
time.sleep(60)`;
  const holder = spawn("python3", ["-c", script], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    await new Promise((resolve) => holder.stdout.once("data", resolve));
    const before = (await server.report()).calls.write ?? 0;
    await server.ask({ kind: "unmount", target: server.target, force: true });
    expect((await server.report()).calls.write).toBe(before + 1);
  } finally {
    holder.kill("SIGKILL");
  }
});

/** A shell in a mount namespace of its own, made while everything is mounted that is mounted now. */
async function startElsewhere(script: string): Promise<Elsewhere> {
  const shell = spawn("unshare", ["-m", "sh", "-c", `echo ready; ${script}`], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const line = async () => String((await once(shell.stdout, "data"))[0]).trim();
  await line();
  const tell = () => {
    const answer = line();
    shell.stdin.write("go\n");
    return answer;
  };
  return { pid: shell.pid!, tell, end: () => shell.kill("SIGKILL") };
}

interface Elsewhere {
  readonly pid: number;
  /** Lets it go on; what it says next. */
  tell(): Promise<string>;
  end(): void;
}

test.each([
  ["an open file", (target: string) => `exec 5<${target}/file`],
  ["a working directory", (target: string) => `cd ${target}`],
])("a mount of which another namespace uses %s is in use, and stays as it was", async (_, use) => {
  const server = await start();
  const { target } = server;
  writeFileSync(server.path("file"), "still here");
  const holder = await startElsewhere(
    `${use(target)}; read line; echo in; read line; cat ${target}/file; read line`,
  );
  try {
    await holder.tell();
    const refusal = server.ask({ kind: "unmount", target, force: false });
    await expect(refusal).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    await expect(refusal).rejects.toThrow(`sh (process ${holder.pid})`);
    expect(mountsUnder(server.directory)).toEqual([target]);
    expect(await holder.tell()).toBe("still here");
    await server.ask({ kind: "unmount", target, force: true });
    expect((await server.events()).ends).toEqual([target]);
  } finally {
    holder.end();
  }
});

test("a mount of which other namespaces have copies that nobody uses is unmounted with them", async () => {
  const server = await start();
  const { target } = server;
  writeFileSync(server.path("file"), Buffer.alloc(4096, 65));
  const holder = await startElsewhere(`read line; echo $(cat ${target}/file 2>&1); read line`);
  const again = await startElsewhere("read line");
  try {
    const script = `import mmap, os, sys
map = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 4096)
map[0:4] = b"DONE"`;
    const before = (await server.report()).calls.write ?? 0;
    execFileSync("python3", ["-c", script, server.path("file")]);
    await server.ask({ kind: "unmount", target, force: false });
    expect(mountsUnder(server.directory)).toEqual([]);
    expect(await server.events()).toEqual({ ends: [target], warnings: [] });
    expect((await server.report()).calls.write).toBe(before + 1);
    expect(await holder.tell()).toMatch(/not connected/);
  } finally {
    holder.end();
    again.end();
  }
});

test("a namespace that comes and goes while a mount is unmounted does no harm", async () => {
  const server = await start(12);
  const script = "while :; do unshare -m sleep 0.05; done";
  const maker = spawn("sh", ["-c", script], { stdio: "ignore" });
  try {
    for (const target of server.targets) {
      await server.ask({ kind: "unmount", target, force: false });
    }
    expect((await server.events()).ends).toEqual(server.targets);
  } finally {
    maker.kill("SIGKILL");
  }
});

test("close leaves a dead mount, which mounting again explains", async () => {
  const server = await start();
  const { target } = server;
  await server.ask({ kind: "close", target });
  expect(errorCode(() => readdirSync(target))).toBe("ENOTCONN");
  const again = server.ask({ kind: "mount", target, readOnly: false, privileged: true });
  await expect(again).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
  await expect(again).rejects.toThrow(/umount -l/);
});

test("a server killed with SIGKILL leaves a mount that says ENOTCONN and can be detached", async () => {
  const server = await start();
  writeFileSync(server.path("file"), "x");
  await server.kill();
  expect(errorCode(() => statSync(server.path("file")))).toBe("ENOTCONN");
  execFileSync("umount", ["-l", server.target]);
  expect(mountsUnder(server.directory)).toEqual([]);
  expect(readdirSync(server.target)).toEqual([]);
});

test("many sessions share a thread", async () => {
  const server = await start(24);
  const script = server.targets.map(
    (target) => `(cd ${target}; for i in 1 2 3 4 5; do echo $i > f$i; cat f$i; done; ls) &`,
  );
  execFileSync("bash", ["-c", `${script.join("\n")}\nwait`]);
  for (const target of server.targets) {
    expect(readdirSync(target).sort()).toEqual(["f1", "f2", "f3", "f4", "f5"]);
    expect((await server.report(target)).violations).toEqual([]);
  }
  for (const target of server.targets.slice(0, 12)) {
    await server.ask({ kind: "unmount", target, force: false });
  }
  expect(mountsUnder(server.directory)).toHaveLength(12);
  expect(readFileSync(`${server.targets[20]}/f3`, "utf8")).toBe("3\n");
});

test("under a storm of dropped caches the kernel's references balance", async () => {
  const server = await start();
  const drop = "echo 2 > /proc/sys/vm/drop_caches";
  const work = `
    cd ${server.target}
    (while true; do ${drop}; done) & storm=$!
    trap "kill $storm" EXIT
    for round in 1 2 3 4 5 6; do
      mkdir -p a/b/c; for i in $(seq 40); do echo $i > a/b/c/$i; ln a/b/c/$i a/b/l$i; done
      find . -ls > /dev/null; cat a/b/c/* | md5sum > /dev/null
      mv a/b/c d$round; ls -lR > /dev/null; chmod 600 d$round/*; rm -r a
    done
`;
  execFileSync("bash", ["-ec", work]);
  expect(readdirSync(server.path("d6"))).toHaveLength(40);
  rmSync(server.path("d6"), { recursive: true });
  // With everything evicted the kernel holds the root and at most what a last lookup left.
  await eventually(async () => {
    execFileSync("sh", ["-c", "echo 3 > /proc/sys/vm/drop_caches"]);
    return (await server.report()).lookups <= 1;
  });
  const report = await server.report();
  expect(report.violations).toEqual([]);
  expect(report.forgotten).toBeGreaterThan(1000);
});

test("invalidations make the kernel see what changed behind its back", async () => {
  const server = await start();
  const { target } = server;
  writeFileSync(server.path("file"), "old");
  expect(readFileSync(server.path("file"), "utf8")).toBe("old");
  await server.ask({ kind: "overwrite", target, name: "file", text: "new and longer" });
  expect(readFileSync(server.path("file"), "utf8")).toBe("new and longer");

  for (const expireOnly of [false, true]) {
    const name = `planted-${expireOnly}`;
    expect(existsSync(server.path(name))).toBe(false);
    await server.ask({ kind: "plant", target, name, expireOnly });
    expect(existsSync(server.path(name))).toBe(true);
  }
});

test("a session may be closed from inside one of its handlers", async () => {
  const server = await start(2);
  expect(errorCode(() => statSync(server.path("fault-close")))).toBe("ECONNABORTED");
  expect(await server.events()).toEqual({ warnings: [], ends: [server.target] });
  writeFileSync(`${server.targets[1]}/other`, "");
});

test("a thread that is terminated takes its sessions along and leaves the process well", async () => {
  const server = await start();
  const targets = [0, 1, 2].map((i) => `${server.directory}/thread-${i}`);
  for (const target of targets) {
    mkdirSync(target);
    await server.ask({ kind: "startThread", target });
    writeFileSync(`${target}/file`, "served by a thread");
  }
  expect(readFileSync(`${targets[1]}/file`, "utf8")).toBe("served by a thread");
  for (const target of targets) {
    await server.ask({ kind: "terminateThread", target });
    expect(errorCode(() => statSync(`${target}/other`))).toBe("ENOTCONN");
  }
  writeFileSync(server.path("main"), "still served");
});

test("mounting answers what is wrong with a typed error and a remedy", async () => {
  const server = await start();
  const missing = `${server.directory}/missing`;
  const file = `${server.directory}/a-file`;
  writeFileSync(file, "");
  const mount = (target: string) =>
    server.ask({ kind: "mount", target, readOnly: false, privileged: true });
  await expect(mount(missing)).rejects.toMatchObject({ code: "NOT_FOUND" });
  await expect(mount(file)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  await expect(mount("relative")).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  await expect(mount(server.target)).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
  mkdirSync(server.path("inside"));
  await expect(mount(server.path("inside"))).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
});

test("a mount that something else covers is not unmounted in its stead", async () => {
  const server = await start();
  execFileSync("mount", ["-t", "tmpfs", "cover", server.target]);
  const refusal = server.ask({ kind: "unmount", target: server.target, force: false });
  await expect(refusal).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
  await expect(refusal).rejects.toThrow(/tmpfs/);
  execFileSync("umount", [server.target]);
  await server.ask({ kind: "unmount", target: server.target, force: false });
  expect(mountsUnder(server.directory)).toEqual([]);
});

test("a read-only mount refuses writes in the kernel", async () => {
  const server = await start();
  const target = `${server.directory}/read-only`;
  mkdirSync(target);
  await server.ask({ kind: "mount", target, readOnly: true, privileged: true });
  expect(errorCode(() => writeFileSync(`${target}/file`, ""))).toBe("EROFS");
});

test("an ordinary user mounts, uses and unmounts without root", async () => {
  // "nobody": fusermount3 wants a user with a name.
  const user = { uid: 65534, gid: 65534 };
  const server = await MemoryServer.start(0, user);
  servers.push(server);
  const target = `${server.directory}/of-a-user`;
  execFileSync("mkdir", [target], user);
  const direct = server.ask({ kind: "mount", target, readOnly: false, privileged: true });
  await expect(direct).rejects.toMatchObject({ code: "PERMISSION_DENIED" });

  // Without udev the device may be root's alone; Debian's udev rule gives it this mode.
  const { mode } = statSync("/dev/fuse");
  chmodSync("/dev/fuse", 0o600);
  try {
    const closed = server.ask({ kind: "mount", target, readOnly: false, privileged: false });
    await expect(closed).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
    await expect(closed).rejects.toThrow(/chmod 666/);
    chmodSync("/dev/fuse", 0o666);
    await server.ask({ kind: "mount", target, readOnly: false, privileged: false });
  } finally {
    chmodSync("/dev/fuse", mode);
  }
  const script = `cd ${target}; echo mine > file; cat file; stat -c %u:%g:%a file`;
  const text = execFileSync("sh", ["-c", script], { ...user, encoding: "utf8" });
  expect(text).toBe("mine\n65534:65534:644\n");
  await server.ask({ kind: "unmount", target, force: false });
  expect(mountsUnder(server.directory)).toEqual([]);
});

test("fusermount3 mounts and unmounts too", async () => {
  const server = await start();
  const target = `${server.directory}/a mount, through fusermount3`;
  mkdirSync(target);
  await server.ask({ kind: "mount", target, readOnly: false, privileged: false });
  writeFileSync(`${target}/file`, "through the helper");
  expect(readFileSync(`${target}/file`, "utf8")).toBe("through the helper");
  const record = readFileSync("/proc/self/mountinfo", "utf8");
  expect(record).toContain("fuse.varve memory,\\040for\\040a\\040test");
  const fd = openSync(`${target}/file`, "r");
  const refusal = server.ask({ kind: "unmount", target, force: false });
  await expect(refusal).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
  closeSync(fd);
  await server.ask({ kind: "unmount", target, force: false });
  expect(mountsUnder(server.directory)).toEqual([server.target]);
  await server.ask({ kind: "mount", target, readOnly: true, privileged: false });
  const reading = openSync(`${target}`, "r");
  await server.ask({ kind: "unmount", target, force: true });
  closeSync(reading);
  expect(mountsUnder(server.directory)).toEqual([server.target]);
  const missing = `${server.directory}/missing`;
  const failure = server.ask({
    kind: "mount",
    target: missing,
    readOnly: false,
    privileged: false,
  });
  await expect(failure).rejects.toMatchObject({ code: "NOT_FOUND" });
});

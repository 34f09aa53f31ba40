/** A service manager that listens for the daemon, starts it, and wants to hear that it is alive. */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, it } from "vitest";
import { VarveClient } from "../../../src/client/client.js";

const DAEMON = path.resolve(import.meta.dirname, "../../../dist/daemon/bundle/main.mjs");

/** Listens on varve.sock, and on notify.sock for messages, which it writes down; then starts the command. */
const MANAGER = `
import os, socket, sys
directory, *command = sys.argv[1:]
listening = socket.socket(socket.AF_UNIX)
listening.bind(os.path.join(directory, "varve.sock"))
listening.listen(16)
notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notifications.bind(os.path.join(directory, "notify.sock"))
child = os.fork()
if child == 0:
    os.dup2(listening.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="varve.socket")
    os.environ.update(SYSTEMD_EXEC_PID=str(os.getpid()))
    os.environ.update(NOTIFY_SOCKET=os.path.join(directory, "notify.sock"), WATCHDOG_USEC="200000")
    os.execvp(command[0], command)
with open(os.path.join(directory, "messages"), "a", buffering=1) as messages:
    while True:
        messages.write(notifications.recv(4096).decode() + "\\n")
`;

let directory: string;
let manager: ChildProcess | undefined;

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), "varve-activation-"));
});

afterEach(() => {
  manager?.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true });
});

const messages = () => {
  const file = path.join(directory, "messages");
  return existsSync(file) ? readFileSync(file, "utf8").trim().split("\n") : [];
};

it("serves the socket that it is given, says that it is ready and alive, and leaves the socket", async () => {
  const script = path.join(directory, "manager.py");
  writeFileSync(script, MANAGER);
  const flags = ["--root", path.join(directory, "root"), "--state", directory];
  manager = spawn("python3", [script, directory, process.execPath, DAEMON, ...flags], {
    stdio: "ignore",
  });
  const socket = path.join(directory, "varve.sock");
  while (!messages().includes("READY=1")) await sleep(20);
  const client = VarveClient.connect({ socket });
  const { pid, fallbacks } = await client.info();
  expect(fallbacks).toBeInstanceOf(Array);
  const count = () => messages().filter((message) => message === "WATCHDOG=1").length;
  while (count() < 3) await sleep(20);
  await client.shutdown();
  client.close();
  while (existsSync(`/proc/${pid}/cmdline`) && readFileSync(`/proc/${pid}/cmdline`).length > 0) {
    await sleep(20);
  }
  expect(existsSync(socket)).toBe(true);
});

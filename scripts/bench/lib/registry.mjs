/** A private docker-registry on this machine, below a workspace. */

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { openSync, writeFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export class PrivateRegistry {
  #child;

  /** @param {import("./workspace.mjs").Workspace} workspace */
  constructor(workspace, name = "registry") {
    this.workspace = workspace;
    this.dir = workspace.makeDir(name);
  }

  /** Starts it on a free port; `domain` says where. */
  async start() {
    const port = await freePort();
    this.domain = `127.0.0.1:${port}`;
    const config = path.join(this.dir, "config.yml");
    writeFileSync(
      config,
      `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  delete: {enabled: true}
  filesystem: {rootdirectory: ${this.workspace.makeDir("registry", "data")}}
http: {addr: "${this.domain}"}
`,
    );
    const log = openSync(path.join(this.dir, "log"), "a");
    this.#child = spawn("docker-registry", ["serve", config], { stdio: ["ignore", log, log] });
    this.pid = this.#child.pid;
    this.workspace.atEnd(() => this.#kill());
    for (let tries = 0; !(await isOpen(port)); tries++) {
      if (this.#child.exitCode !== null || tries > 500)
        throw new Error(`docker-registry did not start; see ${this.dir}/log`);
      await sleep(20);
    }
    return this;
  }

  #kill() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGKILL");
    spawnSync("sleep", ["0.1"]);
  }
}

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

async function isOpen(port) {
  const socket = net.connect({ port, host: "127.0.0.1" });
  const opened = await Promise.race([
    once(socket, "connect").then(() => true),
    once(socket, "error").then(() => false),
  ]).catch(() => false);
  socket.destroy();
  return opened;
}

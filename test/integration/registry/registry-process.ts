/** Debian's docker-registry with private storage on a free port. */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** What the registry asks of its clients. */
export interface RegistryOptions {
  readonly tls?: boolean;
  /** One user: "user", whose password is "secret". */
  readonly basic?: boolean;
  /** With `tls`: the certificate of the one client that may come. */
  readonly client?: string;
  /** A token server's address and the certificate that it signs with. */
  readonly token?: { readonly realm: string; readonly certificate: string };
}

/** A port that nobody uses just now. */
export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** A CA and a certificate for 127.0.0.1 and localhost, made by openssl. */
export function makeCertificate(directory: string): { cert: string; key: string } {
  const cert = path.join(directory, "server.crt");
  const key = path.join(directory, "server.key");
  const subject = ["-subj", "/CN=localhost", "-addext"];
  const names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
  const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const files = ["-keyout", key, "-out", cert, "-days", "2"];
  execFileSync("openssl", ["req", ...kind, ...files, ...subject, names], { stdio: "ignore" });
  return { cert, key };
}

/** A running registry. Dispose of it. */
export class RegistryProcess {
  readonly directory = mkdtempSync(path.join(os.tmpdir(), "varve-registry-"));
  readonly certificate: string | undefined;
  readonly #options: RegistryOptions;
  readonly #key: string | undefined;
  #child: ChildProcess | undefined;
  port = 0;

  private constructor(options: RegistryOptions) {
    this.#options = options;
    if (options.tls !== true) return;
    const { cert, key } = makeCertificate(this.directory);
    this.certificate = cert;
    this.#key = key;
  }

  static async start(options: RegistryOptions = {}): Promise<RegistryProcess> {
    const registry = new RegistryProcess(options);
    registry.port = await freePort();
    try {
      await registry.restart();
    } catch (error) {
      await registry.dispose();
      throw error;
    }
    return registry;
  }

  get #logFile(): string {
    return path.join(this.directory, "registry.log");
  }

  /** "127.0.0.1:PORT" */
  get domain(): string {
    return `127.0.0.1:${this.port}`;
  }

  get address(): string {
    return `${this.certificate === undefined ? "http" : "https"}://${this.domain}`;
  }

  /** Requests in the log, "GET /v2/…". */
  requests(): string[] {
    return [...readFileSync(this.#logFile, "utf8").matchAll(/"([A-Z]+) (\/v2\/\S*) HTTP/g)].map(
      ([, m, p]) => `${m} ${p}`,
    );
  }

  async restart(): Promise<void> {
    await this.stop();
    const config = path.join(this.directory, "config.yml");
    writeFileSync(config, this.#config());
    // A file, so that a test that blocks its own thread sees what was written meanwhile.
    const log = openSync(this.#logFile, "a");
    const child = spawn("docker-registry", ["serve", config], { stdio: ["ignore", log, log] });
    closeSync(log);
    this.#child = child;
    for (let tries = 0; !(await isOpen(this.port)); tries++) {
      if (child.exitCode !== null || tries > 500)
        throw new Error(`registry: ${readFileSync(this.#logFile, "utf8")}`);
      await sleep(20);
    }
  }

  #config(): string {
    const { basic, token, client } = this.#options;
    const clients = client === undefined ? "" : `    clientcas: [${client}]\n`;
    const auth = basic
      ? `auth:\n  htpasswd:\n    realm: tests\n    path: ${this.#htpasswd()}\n`
      : token === undefined
        ? ""
        : `auth:\n  token:\n    realm: ${token.realm}\n    service: tests\n    issuer: tests\n` +
          `    rootcertbundle: ${token.certificate}\n`;
    const tls =
      this.certificate === undefined
        ? ""
        : `  tls:\n    certificate: ${this.certificate}\n    key: ${this.#key}\n${clients}`;
    mkdirSync(path.join(this.directory, "data"), { recursive: true });
    return (
      "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: false\nstorage:\n" +
      "  delete:\n    enabled: true\n" +
      `  filesystem:\n    rootdirectory: ${path.join(this.directory, "data")}\n` +
      `http:\n  addr: ${this.domain}\n${tls}${auth}`
    );
  }

  #htpasswd(): string {
    const file = path.join(this.directory, "htpasswd");
    // perl's crypt(3) is libxcrypt, which knows bcrypt.
    const hash = execFileSync("perl", [
      "-e",
      'print crypt("secret", $ARGV[0])',
      `$2y$05$${"a".repeat(21)}e`,
    ]);
    writeFileSync(file, `user:${hash.toString()}\n`);
    return file;
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, "exit");
    child.kill("SIGKILL");
    await exit;
  }

  async dispose(): Promise<void> {
    await this.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

async function isOpen(port: number): Promise<boolean> {
  const socket = net.connect({ port, host: "127.0.0.1" });
  const opened = await Promise.race([
    once(socket, "connect").then(() => true),
    once(socket, "error").then(() => false),
  ]).catch(() => false);
  socket.destroy();
  return opened;
}

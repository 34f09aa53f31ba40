/** Whatever is sent to the socket is answered by an error of a known kind, and others are served on. */

import { once } from "node:events";
import http2 from "node:http2";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";
import {
  create,
  type DescField,
  type DescMessage,
  type DescMethod,
  toBinary,
} from "@bufbuild/protobuf";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Varve } from "../../../src/services/gen/varve/v1/varve_pb.js";
import { randomNumbers } from "../../tools/random.js";
import { DaemonSandbox } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

/** gRPC's names for what is a bug. */
const UNKNOWN = "2";
const INTERNAL = "13";
const ROUNDS = Number(process.env.VARVE_TEST_ROUNDS ?? 4);
const SEED = Date.now() % 1_000_000;
/** They end the daemon, or look for a registry of that name. */
const ELSEWHERE = new Set(["Shutdown", "PullImage", "PushImage", "Login"]);
const TEXTS = [
  ...["", "small", "v", "..", "../../etc", "/dev/null/x", "/proc/self/cwd/x", "sha256:abc"],
  ...[`sha256:${"0".repeat(64)}`, "a\0b", "\u{1f600}", "%s%n", "-1", "a=b", "since=1h"],
  ...["x".repeat(5000), "[", "__proto__", "oci-archive", "linux/amd64", "always", "1:2:3"],
];

const sandbox = new DaemonSandbox();
const random = randomNumbers(SEED);

beforeAll(async () => {
  await sandbox.start();
  await sandbox.load(makeLayout(sandbox.path("layout")));
  await sandbox.mount({ image: "small", name: "v" });
});

afterAll(() => sandbox.dispose());

/** Runs `work` with a connection, which the daemon may close when it has enough. */
async function withSession(work: (session: http2.ClientHttp2Session) => Promise<void>) {
  const createConnection = () => net.connect(sandbox.socket);
  const session = http2.connect("http://localhost", { createConnection });
  session.on("error", () => undefined);
  try {
    await work(session);
  } finally {
    session.destroy();
  }
}

/** Sends one call's bytes; its gRPC status, or "reset" when the stream was ended without one. */
async function call(
  session: http2.ClientHttp2Session,
  method: string,
  body: Buffer,
): Promise<string> {
  const request = session.request({
    ":method": "POST",
    ":path": `/varve.v1.Varve/${method}`,
    "content-type": "application/grpc",
    te: "trailers",
  });
  let status: string | undefined;
  const note = (headers: http2.IncomingHttpHeaders) => {
    status = (headers["grpc-status"] as string | undefined) ?? status;
  };
  request.on("response", note);
  request.on("trailers", note);
  request.on("error", () => undefined);
  request.resume();
  request.end(body);
  // A call that waits for events, or for more, is given up.
  const closed = new Promise((resolve) => request.once("close", resolve));
  if ((await Promise.race([closed, sleep(2000, "late", { ref: false })])) === "late") {
    request.close(http2.constants.NGHTTP2_CANCEL);
    await closed;
  }
  return status ?? "reset";
}

function framed(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function randomScalar(field: DescField): unknown {
  const whole = [0, 1, -1, 7, 2 ** 31 - 1][random(5)]!;
  if (field.fieldKind === "enum") return whole;
  // ScalarType: 8 bool, 9 string, 12 bytes, 1 and 2 floating, 3 4 6 16 18 of 64 bits.
  const { scalar } = field;
  if (scalar === 9) return TEXTS[random(TEXTS.length)];
  if (scalar === 8) return random(2) === 0;
  if (scalar === 12) return Buffer.from(TEXTS[random(TEXTS.length)]!);
  const number = scalar === 4 || scalar === 13 || scalar === 6 ? Math.abs(whole) : whole;
  return [3, 4, 6, 16, 18].includes(scalar ?? 0) ? BigInt(number) : number;
}

/** A message whose fields have values of the right type, and nothing else that is right about them. */
function randomMessage(schema: DescMessage, depth = 0): Record<string, unknown> {
  const message: Record<string, unknown> = {};
  for (const field of schema.fields) {
    if (field.oneof !== undefined || random(3) === 0) continue;
    const one = () =>
      field.message === undefined ? randomScalar(field) : randomMessage(field.message, depth + 1);
    if (field.message !== undefined && depth > 2) continue;
    if (field.fieldKind === "list") {
      const element = (): unknown =>
        field.listKind === "message"
          ? randomMessage(field.message, depth + 1)
          : TEXTS[random(TEXTS.length)];
      if (field.listKind === "enum" || (field.listKind === "scalar" && field.scalar !== 9))
        continue;
      message[field.localName] = Array.from({ length: random(4) }, element);
    } else if (field.fieldKind !== "map") {
      message[field.localName] = one();
    }
  }
  return message;
}

const methods = Varve.methods.filter(({ name }) => !ELSEWHERE.has(name));

async function expectServed(): Promise<void> {
  await sandbox.client.version();
  const { views } = await sandbox.client.listViews({});
  expect(Array.isArray(views)).toBe(true);
}

it(`calls with fields of any content (seed ${SEED})`, { timeout: 120_000 }, async () => {
  const bugs: string[] = [];
  const ask = async (session: http2.ClientHttp2Session, { name, input }: DescMethod) => {
    const message = randomMessage(input);
    const status = await call(session, name, framed(toBinary(input, create(input, message))));
    if (status !== UNKNOWN && status !== INTERNAL) return;
    bugs.push(`${name} ${status} ${inspect(message, { depth: 5 }).slice(0, 500)}`);
  };
  for (let round = 0; round < ROUNDS; round++) {
    await withSession(async (session) => {
      await Promise.all(methods.map((method) => ask(session, method)));
    });
  }
  expect(bugs).toEqual([]);
  await expectServed();
});

it("messages that are cut, too long, said to be compressed, or noise", async () => {
  const frames = [
    ...[Buffer.alloc(0), Buffer.from([0, 0, 0]), Buffer.from([0, 0xff, 0xff, 0xff, 0xff])],
    ...[Buffer.from([1, 0, 0, 0, 2, 1, 2]), Buffer.from([7, 0, 0, 0, 0])],
    ...[framed(Buffer.alloc(300, 0xff)), framed(Buffer.alloc(20 << 20)), Buffer.alloc(4000, 0x2e)],
  ];
  for (const frame of frames) {
    for (const { name } of methods.slice(0, 8)) {
      await withSession(async (session) => void (await call(session, name, frame)));
    }
  }
  await expectServed();
});

it("connections that speak no HTTP/2", async () => {
  const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  const noise = () => Buffer.from(Array.from({ length: 2000 }, () => random(256)));
  for (let round = 0; round < 20; round++) {
    const socket = net.connect(sandbox.socket);
    socket.on("error", () => undefined);
    socket.resume();
    const said = [
      noise(),
      Buffer.concat([preface, noise()]),
      Buffer.from("GET / HTTP/1.1\r\n\r\n"),
    ];
    socket.end(said[round % 3]!);
    await Promise.race([once(socket, "close"), sleep(2000, undefined, { ref: false })]);
    socket.destroy();
  }
  await expectServed();
});

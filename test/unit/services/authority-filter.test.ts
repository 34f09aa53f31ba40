/** Requests with a path as authority, as older kubelets send them. */

import { once } from "node:events";
import http2, { createServer } from "node:http2";
import net from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { AuthorityFilter, withPlainAuthority } from "../../../src/services/authority-filter.js";

const PATH = "/run/varve/cri.sock";
const cleanups: (() => void)[] = [];

afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
});

/** A server that answers with the authority that it saw; `filter` stands before it. */
async function serve(filter: (socket: net.Socket) => net.Socket | import("node:stream").Duplex) {
  const server = createServer((request, response) => response.end(request.authority));
  const listener = net.createServer((socket) => server.emit("connection", filter(socket)));
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address() as net.AddressInfo;
  const session = http2.connect(`http://127.0.0.1:${port}`);
  session.on("error", () => undefined);
  cleanups.push(
    () => listener.close(),
    () => session.destroy(),
  );
  return session;
}

async function get(session: http2.ClientHttp2Session, authority: string): Promise<string> {
  const stream = session.request({ ":path": "/", ":authority": authority });
  let body = "";
  stream.on("data", (chunk: Buffer) => {
    body += chunk.toString();
  });
  await once(stream, "end");
  return body;
}

describe("a path as authority", () => {
  it("is refused by Node, and gets through the filter, again and again on one connection", async () => {
    await expect(get(await serve((socket) => socket), PATH)).rejects.toThrow(/PROTOCOL_ERROR/);
    const session = await serve(withPlainAuthority);
    const answers = [];
    for (let turn = 0; turn < 3; turn++) answers.push(await get(session, PATH));
    answers.push(await get(session, "localhost"), await get(session, PATH));
    expect(answers).toEqual(["x", "x", "x", "x", "x"]);
  });

  it("is found in whatever pieces the bytes come", async () => {
    const sent: Buffer[] = [];
    const session = await serve((socket) => {
      socket.on("data", (chunk: Buffer) => sent.push(chunk));
      return withPlainAuthority(socket);
    });
    await get(session, PATH);
    const bytes = Buffer.concat(sent);
    const whole = new AuthorityFilter().pass(bytes);
    expect(whole.length).toBeLessThan(bytes.length);
    const filter = new AuthorityFilter();
    const pieces = [...bytes].map((byte) => filter.pass(Buffer.of(byte)));
    expect(Buffer.concat(pieces).equals(whole)).toBe(true);
  });

  it("leaves nonsense to the parser behind it", () => {
    const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    for (const block of ["41", "417fffffffffff", "0141", "40", "ff", ""]) {
      const body = Buffer.from(block, "hex");
      const frame = Buffer.from([0, 0, body.length, 1, 4, 0, 0, 0, 1, ...body]);
      const input = Buffer.concat([preface, frame]);
      expect(new AuthorityFilter().pass(input).equals(input), block).toBe(true);
    }
  });
});

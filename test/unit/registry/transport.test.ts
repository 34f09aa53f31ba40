/** Proxies from the environment, against a proxy of the test's own. */

import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { request } from "undici";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Transport } from "../../../src/registry/transport.js";

const tls = { ca: [], clients: [], skipVerify: false };
let server: Server;
let asked: string[];
let transport: Transport;

beforeEach(async () => {
  asked = [];
  transport = new Transport();
  server = createServer((incoming, response) => {
    asked.push(`${incoming.method} ${incoming.url}`);
    response.end("answer");
  });
  server.on("connect", (incoming: { url?: string }, socket: Socket) => {
    asked.push(`CONNECT ${incoming.url}`);
    socket.end("HTTP/1.1 403 Forbidden\r\n\r\n");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
});

afterEach(async () => {
  await transport.close();
  server.close();
});

const address = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

async function get(url: string, environment: Record<string, string>): Promise<string> {
  const scheme = url.startsWith("https:") ? "https" : "http";
  const dispatcher = transport.dispatcher({ tls }, environment, scheme);
  return await (await request(url, { dispatcher })).body.text();
}

it("a host that takes too long to connect is given up", async () => {
  // It never answers the TLS greeting.
  const mute = createTcpServer().listen(0, "127.0.0.1");
  await once(mute, "listening");
  const { port } = mute.address() as AddressInfo;
  const dispatcher = transport.dispatcher({ tls, dialTimeoutMs: 100 }, {}, "https");
  try {
    await expect(request(`https://127.0.0.1:${port}/`, { dispatcher })).rejects.toMatchObject({
      code: "UND_ERR_CONNECT_TIMEOUT",
    });
  } finally {
    mute.close();
  }
});

describe("a proxy of the environment", () => {
  it("passes plain http on, and is asked for a tunnel for https", async () => {
    expect(await get("http://r.invalid:81/v2/", { HTTP_PROXY: address() })).toBe("answer");
    await expect(get("https://r.invalid/v2/", { https_proxy: address() })).rejects.toThrow();
    expect(asked).toEqual(["GET http://r.invalid:81/v2/", "CONNECT r.invalid:443"]);
  });

  it("is left out for this machine, and for hosts in NO_PROXY", async () => {
    const environment = { HTTP_PROXY: address(), NO_PROXY: "r.invalid" };
    await expect(get("http://r.invalid/", environment)).rejects.toThrow();
    expect(await get(`${address()}/v2/`, environment)).toBe("answer");
    expect(asked).toEqual(["GET /v2/"]);
  });

  it("that is no http address is refused", () => {
    expect(() => transport.dispatcher({ tls }, { ALL_PROXY: "socks5://x" }, "http")).toThrow(
      /proxy/,
    );
  });
});

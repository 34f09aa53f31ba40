/**
 * A line to a server on this machine that is slow per connection, as lines to far blob stores are.
 * A process of its own, because the benchmarks wait for their contestants without an event loop.
 *
 *   node slow-line.mjs HOST:PORT MEGABYTES_PER_SECOND DELAY_MS
 *
 * Prints the address that it listens on. Each connection gets the rate for itself; what the server
 * sends arrives after the delay.
 */

import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const [address = "", rate, delay] = process.argv.slice(2);
const [host, port] = address.split(":");
const bytesPerMs = (Number(rate) * 1e6) / 1000;
const delayMs = Number(delay);

const server = net.createServer({ noDelay: true }, async (client) => {
  const upstream = net.connect({ host, port: Number(port), noDelay: true });
  const end = () => {
    client.destroy();
    upstream.destroy();
  };
  client.on("error", end).on("close", end);
  client.pipe(upstream);
  let free = 0;
  try {
    for await (const chunk of upstream) {
      const now = performance.now();
      // After a pause it is an answer's first byte, which has to come all the way.
      if (now > free + 5) free = now + delayMs;
      free += chunk.length / bytesPerMs;
      await sleep(free - now);
      client.write(chunk);
    }
    client.end();
  } catch {
    end();
  }
});
server.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${server.address().port}`));

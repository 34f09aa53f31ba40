// The real view worker, whose first thread gets stuck in a system call when the fifo named in STUCK_FIFO appears.
import { existsSync, openSync, writeFileSync } from "node:fs";
import "../../../dist/views/view-worker.cjs";

const fifo = process.env.STUCK_FIFO;
setInterval(() => {
  if (!existsSync(fifo) || existsSync(`${fifo}.reached`)) return;
  writeFileSync(`${fifo}.reached`, "");
  openSync(fifo, "r");
}, 5);

// The real view worker, which crashes when the file named in CRASH_FILE appears.
import { existsSync } from "node:fs";
import "../../../dist/views/view-worker.cjs";

setInterval(() => {
  if (existsSync(process.env.CRASH_FILE)) throw new Error("crashed on request");
}, 10);

/** The daemon's log: JSON lines on standard error, readable ones on a terminal. */

import { writeSync } from "node:fs";
import { type Logger, pino } from "pino";
import type { Log } from "../snapshots/log.js";
import { currentRequest } from "../system/request-context.js";

const STANDARD_ERROR = 2;

/** A logger of this level. Lines are written synchronously: none is lost when the process ends. */
export function createLogger(level: string): Logger {
  const destination = process.stderr.isTTY
    ? { write: (line: string) => writeLine(readable(line)) }
    : { write: writeLine };
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      mixin: () => ({ ...currentRequest() }),
      formatters: { level: levelName },
    },
    destination,
  );
}

/** A log that nobody reads any more (a closed pipe, a full disk) is no reason to end. */
function writeLine(line: string): void {
  try {
    writeSync(STANDARD_ERROR, line);
  } catch {
    // There is nowhere left to say so.
  }
}

/** The face of the log that the rooms below see. */
export function roomLog(logger: Logger): Log {
  return {
    debug: (message) => logger.debug(message),
    info: (message) => logger.info(message),
    warn: (message, error) =>
      error === undefined
        ? logger.warn(message)
        : logger.warn({ err: error }, withReason(message, error)),
  };
}

function levelName(label: string): { level: string } {
  return { level: label };
}

function withReason(message: string, error: unknown): string {
  return error instanceof Error ? `${message}: ${error.message}` : `${message}: ${String(error)}`;
}

/** "12:30:01.123 WARN  message", with the stack of a bug below it. */
function readable(line: string): string {
  const { time, level, msg, err } = JSON.parse(line) as {
    time: string;
    level: string;
    msg?: string;
    err?: { type?: string; stack?: string };
  };
  const clock = time.slice("yyyy-mm-ddT".length, -1);
  const text = `${clock} ${level.toUpperCase().padEnd(5)} ${msg ?? ""}\n`;
  // Our own errors say all in their message; the stack of any other is the message.
  const isBug = err?.type !== undefined && /^(Type|Range|Reference|Syntax)?Error$/.test(err.type);
  return isBug && err?.stack !== undefined ? `${text}${err.stack}\n` : text;
}

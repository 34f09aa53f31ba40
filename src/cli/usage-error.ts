/** Mistakes in how a command was called. */

import { InvalidArgumentError } from "../system/errors.js";

/** The command line itself is wrong: unknown flag, bad value, arguments that exclude each other. Exit code 2. */
export class UsageError extends InvalidArgumentError {}

import fs from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { errorFromTrailers } from "../../../src/client/status-error.js";
import { toServiceError } from "../../../src/services/errors.js";
import { errorOfCode } from "../../../src/system/error-of-code.js";
import { BaseError, type ErrorCode, SyscallError } from "../../../src/system/errors.js";

const CODES: Record<ErrorCode, number> = {
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  INVALID_ARGUMENT: 3,
  FAILED_PRECONDITION: 9,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  UNAVAILABLE: 14,
  CORRUPT_DATA: 15,
  UNSUPPORTED: 12,
  CANCELLED: 1,
  SYSCALL: 13,
};

function convert(error: unknown): { status: number; bugs: unknown[]; back: BaseError | undefined } {
  const bugs: unknown[] = [];
  const failure = toServiceError(error, (bug) => bugs.push(bug));
  const trailers = {
    ...failure.metadata.getMap(),
    "grpc-status": String(failure.code),
    "grpc-message": encodeURI(failure.details),
  };
  return { status: failure.code, bugs, back: errorFromTrailers(trailers, "Method") };
}

describe("errors on the wire", () => {
  it.each(Object.entries(CODES))("keep code and message of %s (status %d)", (code, status) => {
    const message = `op "x": 100% ä\n‮ reason`;
    const { bugs, ...result } = convert(errorOfCode(code as ErrorCode, message));
    expect(result.status).toBe(status);
    expect(result.back).toMatchObject({ code, message });
    expect(bugs).toEqual([]);
  });

  it.each([
    ["ENOSPC", 28, 8],
    ["EDQUOT", 122, 8],
    ["EACCES", 13, 7],
    ["EPERM", 1, 7],
    ["EIO", 5, 13],
  ])("give %s its own status", (name, errno, status) => {
    const { back, ...result } = convert(new SyscallError(errno, name, "write", "/x", "text"));
    expect(result.status).toBe(status);
    expect(back).toMatchObject({
      code: "SYSCALL",
      details: { errnoName: name, errno, syscall: "write" },
    });
  });

  it("know the failures of node:fs", async () => {
    const error = await fs.readFile("/nonexistent/file").catch((reason: unknown) => reason);
    const { status, bugs, back } = convert(error);
    expect(status).toBe(13);
    expect(bugs).toEqual([]);
    expect(back?.details).toMatchObject({ errnoName: "ENOENT", syscall: "open" });
  });

  it("log a bug and say that it is one", () => {
    const bug = new TypeError("x is not a function");
    const { status, bugs, back } = convert(bug);
    expect(status).toBe(13);
    expect(bugs).toEqual([bug]);
    expect(back).toBeInstanceOf(BaseError);
    expect(back?.message).toContain("internal error");
  });

  it("cut a message that no header can hold", () => {
    const { back } = convert(errorOfCode("NOT_FOUND", "x".repeat(100_000)));
    expect(back?.message.length).toBeLessThan(8000);
  });

  it("survive text that is no Unicode", () => {
    const { back } = convert(errorOfCode("NOT_FOUND", "name \ud800"));
    expect(back?.code).toBe("NOT_FOUND");
  });
});

import { expect, test } from "vitest";
import * as c from "../../../src/fuse/constants.js";
import { NO_REPLY } from "../../../src/fuse/exchange.js";
import type { Attributes, Entry, FileSystem } from "../../../src/fuse/file-system.js";
import { OPERATIONS } from "../../../src/fuse/operations.js";
import { MalformedRequest, RefusedRequest } from "../../../src/fuse/request.js";
import type { ByteString } from "../../../src/system/bytes.js";
import {
  EFBIG,
  EINVAL,
  EIO,
  ENAMETOOLONG,
  ENOENT,
  ENOSYS,
  ENOTTY,
  ENXIO,
  ERANGE,
} from "../../../src/system/errno.js";
import { encodeRequest, type Field, names } from "./request-encoder.js";
import { StubExchange } from "./stub-exchange.js";

const ATTRIBUTES: Attributes = {
  ino: 2 ** 40 + 5,
  mode: 0o100644,
  nlink: 3,
  uid: 1000,
  gid: 4294967294,
  rdev: 0x12345,
  size: 2 ** 45 + 7,
  blocks: 99,
  blksize: 4096,
  atimeSec: -1,
  atimeNsec: 1,
  mtimeSec: 2 ** 33,
  mtimeNsec: 999_999_999,
  ctimeSec: 0,
  ctimeNsec: 3,
  isVolatile: false,
  incarnation: 0,
};

function fillEntry(entry: Entry): number {
  entry.node = 2 ** 50;
  entry.generation = 6;
  Object.assign(entry.attributes, ATTRIBUTES);
  return 0;
}

/** Reads struct fuse_attr by the offsets of linux/fuse.h. */
function readAttributes(body: Buffer, at: number): Attributes {
  return {
    ino: Number(body.readBigUInt64LE(at)),
    size: Number(body.readBigUInt64LE(at + 8)),
    blocks: Number(body.readBigUInt64LE(at + 16)),
    atimeSec: Number(body.readBigInt64LE(at + 24)),
    mtimeSec: Number(body.readBigInt64LE(at + 32)),
    isVolatile: false,
    incarnation: 0,
    ctimeSec: Number(body.readBigInt64LE(at + 40)),
    atimeNsec: body.readUInt32LE(at + 48),
    mtimeNsec: body.readUInt32LE(at + 52),
    ctimeNsec: body.readUInt32LE(at + 56),
    mode: body.readUInt32LE(at + 60),
    nlink: body.readUInt32LE(at + 64),
    uid: body.readUInt32LE(at + 68),
    gid: body.readUInt32LE(at + 72),
    rdev: body.readUInt32LE(at + 76),
    blksize: body.readUInt32LE(at + 80),
  };
}

/** Runs one message against handlers that record their arguments. */
function record(method: keyof FileSystem, message: Buffer, result: unknown = 0): unknown[] {
  let seen: unknown[] = [];
  const fileSystem = {
    [method]: (...values: unknown[]) => {
      // Buffers and output objects are reused after the call.
      seen = values.map((value) => (Buffer.isBuffer(value) ? Buffer.from(value) : value));
      return result;
    },
  };
  new StubExchange(fileSystem).run(message);
  return seen;
}

test("LOOKUP puts an entry that the kernel may keep for ever", () => {
  const x = new StubExchange({ lookup: (_parent, _name, out) => fillEntry(out) });
  expect(x.run(encodeRequest({ opcode: c.FUSE_LOOKUP }, [], names("n")))).toBe(128);
  const body = x.body(128);
  expect(Number(body.readBigUInt64LE(0))).toBe(2 ** 50);
  expect(body.readBigUInt64LE(8)).toBe(6n);
  expect(body.readBigUInt64LE(16)).toBe(2n ** 31n);
  expect(body.readBigUInt64LE(24)).toBe(2n ** 31n);
  expect(readAttributes(body, 40)).toEqual(ATTRIBUTES);
});

test("a negative entry has node 0 and stays as long", () => {
  const x = new StubExchange({ lookup: () => 0 });
  expect(x.run(encodeRequest({ opcode: c.FUSE_LOOKUP }, [], names("n")))).toBe(128);
  expect(x.body(128).readBigUInt64LE(0)).toBe(0n);
  expect(x.body(128).readBigUInt64LE(16)).toBe(2n ** 31n);
});

test("GETATTR puts attributes at their place", () => {
  const x = new StubExchange({
    getattr: (_node, out) => {
      Object.assign(out, ATTRIBUTES);
      return 0;
    },
  });
  const message = encodeRequest({ opcode: c.FUSE_GETATTR }, [
    [32, 0],
    [32, 0],
    [64, 0],
  ]);
  expect(x.run(message)).toBe(104);
  expect(x.body(104).readBigUInt64LE(0)).toBe(2n ** 31n);
  expect(readAttributes(x.body(104), 16)).toEqual(ATTRIBUTES);
});

test("every operation passes a failure on as it is", () => {
  const x = new StubExchange({ lookup: () => -ENOENT, unlink: () => -ENOENT, statfs: () => -EIO });
  expect(x.run(encodeRequest({ opcode: c.FUSE_LOOKUP }, [], names("n")))).toBe(-ENOENT);
  expect(x.run(encodeRequest({ opcode: c.FUSE_UNLINK }, [], names("n")))).toBe(-ENOENT);
  expect(x.run(encodeRequest({ opcode: c.FUSE_STATFS }))).toBe(-EIO);
});

test("SETATTR reads its 88 bytes, times before 1970 included", () => {
  const fields: Field[] = [
    [32, 0x7ff],
    [32, 0],
    [64, 0],
    [64, 2 ** 44],
    [64, 0],
    [64, -5n],
    [64, 2 ** 34],
    [64, -(2n ** 40n)],
    [32, 11],
    [32, 12],
    [32, 13],
    [32, 0o100755],
    [32, 0],
    [32, 501],
    [32, 502],
    [32, 0],
  ];
  const x = new StubExchange({
    setattr: (_caller, node, set) => {
      expect(node).toBe(9);
      expect(set).toEqual({
        valid: 0x7ff,
        size: 2 ** 44,
        atimeSec: -5,
        mtimeSec: 2 ** 34,
        ctimeSec: -(2 ** 40),
        atimeNsec: 11,
        mtimeNsec: 12,
        ctimeNsec: 13,
        mode: 0o100755,
        uid: 501,
        gid: 502,
      });
      return 0;
    },
  });
  expect(x.run(encodeRequest({ opcode: c.FUSE_SETATTR, node: 9 }, fields))).toBe(104);
  const huge = fields.map((field, i): Field => (i === 3 ? [64, 2n ** 63n - 1n] : field));
  expect(x.run(encodeRequest({ opcode: c.FUSE_SETATTR }, huge))).toBe(-EFBIG);
});

test("creating operations read mode, device, umask, names and the caller", () => {
  const caller = { uid: 5, gid: 6, pid: 7 };
  const at = { node: 3, ...caller };
  const entry = expect.anything();
  const mknod: Field[] = [
    [32, 0o20600],
    [32, 0x105],
    [32, 0o22],
    [32, 0],
  ];
  expect(
    record("mknod", encodeRequest({ opcode: c.FUSE_MKNOD, ...at }, mknod, names("dev"))),
  ).toEqual([caller, 3, "dev", 0o20600, 0x105, 0o22, entry]);
  const mkdir: Field[] = [
    [32, 0o755],
    [32, 0o77],
  ];
  expect(
    record("mkdir", encodeRequest({ opcode: c.FUSE_MKDIR, ...at }, mkdir, names("dir"))),
  ).toEqual([caller, 3, "dir", 0o755, 0o77, entry]);
  expect(
    record("symlink", encodeRequest({ opcode: c.FUSE_SYMLINK, ...at }, [], names("l", "../t"))),
  ).toEqual([caller, 3, "l", "../t", entry]);
  const create: Field[] = [
    [32, 0x8042],
    [32, 0o100644],
    [32, 0o22],
    [32, 0],
  ];
  const open = expect.objectContaining({ handle: 0, openFlags: c.FOPEN_KEEP_CACHE });
  expect(
    record("create", encodeRequest({ opcode: c.FUSE_CREATE, ...at }, create, names("new"))),
  ).toEqual([caller, 3, "new", 0o100644, 0x8042, 0o22, entry, open]);
  expect(
    record("tmpfile", encodeRequest({ opcode: c.FUSE_TMPFILE, ...at }, create, names("/"))),
  ).toEqual([caller, 3, 0o100644, 0x8042, 0o22, entry, open]);
  expect(
    record("link", encodeRequest({ opcode: c.FUSE_LINK, ...at }, [[64, 44]], names("hard"))),
  ).toEqual([44, 3, "hard", entry]);
});

test("RENAME and RENAME2 read both names, and the flags", () => {
  const rename = encodeRequest({ opcode: c.FUSE_RENAME, node: 3 }, [[64, 8]], names("a", "b"));
  expect(record("rename", rename)).toEqual([3, "a", 8, "b", 0]);
  const fields: Field[] = [
    [64, 8],
    [32, 2],
    [32, 0],
  ];
  const rename2 = encodeRequest({ opcode: c.FUSE_RENAME2, node: 3 }, fields, names("a", "b"));
  expect(record("rename", rename2)).toEqual([3, "a", 8, "b", 2]);
});

test("names longer than 255 bytes are refused for every operation that takes one", () => {
  const long = names("y".repeat(256));
  const x = new StubExchange({});
  const messages = [
    encodeRequest({ opcode: c.FUSE_LOOKUP }, [], long),
    encodeRequest({ opcode: c.FUSE_UNLINK }, [], long),
    encodeRequest({ opcode: c.FUSE_RMDIR }, [], long),
    encodeRequest({ opcode: c.FUSE_MKDIR }, [[64, 0]], long),
    encodeRequest(
      { opcode: c.FUSE_MKNOD },
      [
        [64, 0],
        [64, 0],
      ],
      long,
    ),
    encodeRequest({ opcode: c.FUSE_LINK }, [[64, 0]], long),
    encodeRequest({ opcode: c.FUSE_RENAME }, [[64, 0]], Buffer.concat([names("a"), long])),
  ];
  for (const message of messages) expect(() => x.run(message)).toThrow(RefusedRequest);
  const symlink = encodeRequest({ opcode: c.FUSE_SYMLINK }, [], Buffer.concat([long, names("t")]));
  expect(x.run(symlink)).toBe(-ENAMETOOLONG);
});

test("READ reads into the reply, as much as was asked and no more", () => {
  const fields = (offset: number | bigint, size: number): Field[] => [
    [64, 17],
    [64, offset],
    [32, size],
    [32, 0],
    [64, 0],
    [32, 0],
    [32, 0],
  ];
  const x = new StubExchange({
    read: (node, handle, offset, target) => {
      expect([node, handle, offset, target.length]).toEqual([4, 17, 2 ** 40, 8192]);
      target.fill(0xab);
      return 5000;
    },
  });
  expect(x.run(encodeRequest({ opcode: c.FUSE_READ, node: 4 }, fields(2 ** 40, 8192)))).toBe(5000);
  expect(x.body(8192)).toEqual(Buffer.alloc(8192, 0xab));
  const beyond = fields(0, c.MAX_TRANSFER_BYTES + 1);
  expect(x.run(encodeRequest({ opcode: c.FUSE_READ }, beyond))).toBe(-EINVAL);
  expect(x.run(encodeRequest({ opcode: c.FUSE_READ }, fields(2n ** 62n, 4096)))).toBe(0);
  const liar = new StubExchange({ read: () => 101 });
  expect(liar.run(encodeRequest({ opcode: c.FUSE_READ }, fields(0, 100)))).toBe(-EIO);
});

test("WRITE passes its data, and refuses offsets that no number holds", () => {
  const fields = (offset: number | bigint, size: number): Field[] => [
    [64, 17],
    [64, offset],
    [32, size],
    [32, 4],
    [64, 0],
    [32, 0],
    [32, 0],
  ];
  const data = Buffer.from("some data");
  const message = encodeRequest({ opcode: c.FUSE_WRITE, node: 4 }, fields(7, 9), data);
  expect(record("write", message, 9)).toEqual([4, 17, 7, data, 4]);
  const x = new StubExchange({ write: () => 9 });
  expect(x.run(message)).toBe(8);
  expect(x.body(4).readUInt32LE()).toBe(9);
  const far = encodeRequest({ opcode: c.FUSE_WRITE }, fields(2n ** 53n, 9), data);
  expect(x.run(far)).toBe(-EFBIG);
  const short = encodeRequest({ opcode: c.FUSE_WRITE }, fields(0, 10), data);
  expect(() => x.run(short)).toThrow(MalformedRequest);
});

test("FORGET and BATCH_FORGET count, and are never answered", () => {
  const seen: number[][] = [];
  const x = new StubExchange({ forget: (node, count) => seen.push([node, count]) });
  expect(x.run(encodeRequest({ opcode: c.FUSE_FORGET, node: 5 }, [[64, 3]]))).toBe(NO_REPLY);
  const fields: Field[] = [
    [32, 2],
    [32, 0],
    [64, 6],
    [64, 1],
    [64, 7],
    [64, 2 ** 33],
  ];
  expect(x.run(encodeRequest({ opcode: c.FUSE_BATCH_FORGET }, fields))).toBe(NO_REPLY);
  expect(seen).toEqual([
    [5, 3],
    [6, 1],
    [7, 2 ** 33],
  ]);
  const hostile: Field[] = [
    [32, 0xffffffff],
    [32, 0],
    [64, 6],
    [64, 1],
  ];
  expect(() => x.run(encodeRequest({ opcode: c.FUSE_BATCH_FORGET }, hostile))).toThrow(
    MalformedRequest,
  );
  expect(seen).toHaveLength(3);
});

test("SETXATTR is read in both of its lengths", () => {
  const caller = expect.anything();
  const value = Buffer.from([1, 0, 2]);
  const rest = Buffer.concat([names("user.x"), value]);
  const long: Field[] = [
    [32, 3],
    [32, 1],
    [32, 1],
    [32, 0],
  ];
  const message = encodeRequest({ opcode: c.FUSE_SETXATTR, node: 2 }, long, rest);
  expect(record("setxattr", message)).toEqual([caller, 2, "user.x", value, 1, true]);
  let seen: unknown[] = [];
  const x = new StubExchange({
    setxattr: (...values) => {
      seen = values;
      return 0;
    },
  });
  x.hasExtendedSetxattr = false;
  x.run(
    encodeRequest(
      { opcode: c.FUSE_SETXATTR, node: 2 },
      [
        [32, 3],
        [32, 0],
      ],
      rest,
    ),
  );
  expect(seen.slice(1)).toEqual([2, "user.x", value, 0, false]);
  const hostile = encodeRequest(
    { opcode: c.FUSE_SETXATTR },
    [
      [32, 4],
      [32, 0],
    ],
    rest,
  );
  expect(() => x.run(hostile)).toThrow(MalformedRequest);
});

test("GETXATTR and LISTXATTR tell the size, the bytes, or ERANGE", () => {
  const value = Buffer.from("value");
  const x = new StubExchange({ getxattr: () => value, listxattr: () => Buffer.from("user.a\0") });
  const get = (size: number) =>
    x.run(
      encodeRequest(
        { opcode: c.FUSE_GETXATTR },
        [
          [32, size],
          [32, 0],
        ],
        names("user.a"),
      ),
    );
  expect(get(0)).toBe(8);
  expect(x.body(4).readUInt32LE()).toBe(5);
  expect(get(4)).toBe(-ERANGE);
  expect(get(5)).toBe(5);
  expect(x.body(5)).toEqual(value);
  expect(
    x.run(
      encodeRequest({ opcode: c.FUSE_LISTXATTR }, [
        [32, 100],
        [32, 0],
      ]),
    ),
  ).toBe(7);
  expect(x.body(7).toString()).toBe("user.a\0");
});

test("READLINK refuses a target that the kernel could not take", () => {
  const target = (length: number) => () => "t".repeat(length) as ByteString;
  const message = encodeRequest({ opcode: c.FUSE_READLINK });
  expect(new StubExchange({ readlink: target(4095) }).run(message)).toBe(4095);
  expect(new StubExchange({ readlink: target(4096) }).run(message)).toBe(-ENAMETOOLONG);
  expect(new StubExchange({ readlink: () => -EINVAL }).run(message)).toBe(-EINVAL);
});

test("FALLOCATE, LSEEK and COPY_FILE_RANGE read their fields and bound their numbers", () => {
  const fallocate = (offset: bigint, length: bigint) =>
    encodeRequest({ opcode: c.FUSE_FALLOCATE, node: 2 }, [
      [64, 1],
      [64, offset],
      [64, length],
      [32, 3],
      [32, 0],
    ]);
  expect(record("fallocate", fallocate(10n, 20n))).toEqual([2, 1, 3, 10, 20, false]);
  const x = new StubExchange({
    fallocate: () => 0,
    lseek: () => 2 ** 41,
    copyFileRange: (_node, _offset, _to, _toOffset, length) => length,
  });
  expect(x.run(fallocate(2n ** 52n, 2n ** 52n))).toBe(-EFBIG);
  const lseek = (offset: bigint) =>
    encodeRequest({ opcode: c.FUSE_LSEEK }, [
      [64, 0],
      [64, offset],
      [32, 3],
      [32, 0],
    ]);
  expect(x.run(lseek(5n))).toBe(8);
  expect(x.body(8).readBigUInt64LE()).toBe(2n ** 41n);
  expect(x.run(lseek(2n ** 60n))).toBe(-ENXIO);
  const copy = (opcode: number, length: bigint) =>
    encodeRequest({ opcode }, [
      [64, 0],
      [64, 1],
      [64, 9],
      [64, 0],
      [64, 2],
      [64, length],
      [64, 0],
    ]);
  expect(record("copyFileRange", copy(c.FUSE_COPY_FILE_RANGE, 100n), 100)).toEqual([
    1,
    1,
    9,
    2,
    100,
    false,
  ]);
  expect(x.run(copy(c.FUSE_COPY_FILE_RANGE, 2n ** 40n))).toBe(8);
  expect(x.body(4).readUInt32LE()).toBe(0x7ffff000);
  expect(x.run(copy(c.FUSE_COPY_FILE_RANGE_64, 2n ** 40n))).toBe(8);
  expect(x.body(8).readBigUInt64LE()).toBe(2n ** 40n);
  expect(x.run(copy(c.FUSE_COPY_FILE_RANGE_64, 2n ** 63n - 1n))).toBe(8);
});

test("STATFS fills its 80 bytes", () => {
  const statistics = {
    blocks: 2 ** 40,
    bfree: 2,
    bavail: 3,
    files: 4,
    ffree: 5,
    bsize: 6,
    namelen: 255,
    frsize: 8,
  };
  const x = new StubExchange({
    statfs: (out) => {
      Object.assign(out, statistics);
      return 0;
    },
  });
  expect(x.run(encodeRequest({ opcode: c.FUSE_STATFS }))).toBe(80);
  const body = x.body(80);
  expect([0, 8, 16, 24, 32].map((at) => Number(body.readBigUInt64LE(at)))).toEqual([
    2 ** 40,
    2,
    3,
    4,
    5,
  ]);
  expect([40, 44, 48].map((at) => body.readUInt32LE(at))).toEqual([6, 255, 8]);
});

test("what a file system leaves out is answered ENOSYS, so that the kernel stops asking", () => {
  const x = new StubExchange({});
  const open: Field[] = [
    [32, 0],
    [32, 0],
  ];
  const create: Field[] = [
    [64, 0],
    [64, 0],
  ];
  expect(x.run(encodeRequest({ opcode: c.FUSE_OPEN }, open))).toBe(-ENOSYS);
  expect(x.run(encodeRequest({ opcode: c.FUSE_OPENDIR }, open))).toBe(-ENOSYS);
  expect(x.run(encodeRequest({ opcode: c.FUSE_CREATE }, create, names("n")))).toBe(-ENOSYS);
  expect(x.run(encodeRequest({ opcode: c.FUSE_TMPFILE }, create, names("/")))).toBe(-ENOSYS);
  expect(x.run(encodeRequest({ opcode: c.FUSE_SYNCFS }))).toBe(-ENOSYS);
  for (const opcode of [c.FUSE_FLUSH, c.FUSE_ACCESS, c.FUSE_STATX, c.FUSE_BMAP, c.FUSE_POLL]) {
    expect(x.run(encodeRequest({ opcode }))).toBe(-ENOSYS);
  }
  expect(x.run(encodeRequest({ opcode: c.FUSE_IOCTL }))).toBe(-ENOTTY);
  expect(x.run(encodeRequest({ opcode: c.FUSE_INTERRUPT }, [[64, 1]]))).toBe(NO_REPLY);
});

test("the table has one row for each opcode it serves, with the minimum of linux/fuse.h", () => {
  const known = OPERATIONS.filter((operation) => operation !== undefined);
  expect(new Set(known.map((operation) => operation.name)).size).toBe(known.length);
  expect(OPERATIONS[c.FUSE_SETATTR]?.minimumBytes).toBe(40 + 88);
  expect(OPERATIONS[c.FUSE_COPY_FILE_RANGE_64]?.minimumBytes).toBe(40 + 56);
  expect(OPERATIONS[c.FUSE_LOOKUP]?.givesEntry).toBe(true);
  expect(OPERATIONS[7]).toBeUndefined();
});

/** Reads READDIR and READDIRPLUS bodies as the kernel does, independently of the encoder. */

/** One struct fuse_dirent, with the node of its struct fuse_direntplus if it has one. */
export interface Dirent {
  name: string;
  ino: bigint;
  cookie: bigint;
  type: number;
  node: bigint | undefined;
}

/** All entries of a body; throws when it is not made of whole ones. */
export function readDirents(body: Buffer, plus: boolean): Dirent[] {
  const dirents: Dirent[] = [];
  for (let at = 0; at < body.length; ) {
    const node = plus ? body.readBigUInt64LE(at) : undefined;
    if (plus) at += 128;
    const length = body.readUInt32LE(at + 16);
    dirents.push({
      name: body.toString("latin1", at + 24, at + 24 + length),
      ino: body.readBigUInt64LE(at),
      cookie: body.readBigUInt64LE(at + 8),
      type: body.readUInt32LE(at + 20),
      node,
    });
    at += Math.ceil((24 + length) / 8) * 8;
    if (at > body.length) throw new RangeError("the last entry is cut");
  }
  return dirents;
}

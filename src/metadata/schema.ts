/** The database's tables, as a list of migrations. Position N brings `user_version` from N to N+1. */

/**
 * Statements of each migration. Only ever append: a released migration is history, not source.
 *
 * Conventions: times are integer nanoseconds since 1970, labels a JSON object of strings, digests
 * the full "sha256:…" text, booleans 0 or 1.
 */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE image_references (
    name TEXT PRIMARY KEY,
    target_media_type TEXT NOT NULL,
    target_digest TEXT NOT NULL,
    target_size INTEGER NOT NULL,
    labels TEXT NOT NULL DEFAULT '{}',
    created_ns INTEGER NOT NULL,
    updated_ns INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX image_references_target ON image_references (target_digest);

  CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    media_type TEXT,
    labels TEXT NOT NULL DEFAULT '{}',
    created_ns INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE snapshots (
    name TEXT PRIMARY KEY,
    parent TEXT REFERENCES snapshots (name) ON DELETE RESTRICT,
    kind TEXT NOT NULL CHECK (kind IN ('committed', 'active', 'view')),
    diff_id TEXT,
    size_bytes INTEGER NOT NULL,
    inodes INTEGER NOT NULL,
    labels TEXT NOT NULL DEFAULT '{}',
    created_ns INTEGER NOT NULL,
    updated_ns INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX snapshots_parent ON snapshots (parent);

  CREATE TABLE views (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    image TEXT NOT NULL,
    image_id TEXT NOT NULL,
    manifest_digest TEXT NOT NULL,
    chain_id TEXT,
    read_only INTEGER NOT NULL,
    target TEXT NOT NULL,
    mounted INTEGER NOT NULL,
    labels TEXT NOT NULL DEFAULT '{}',
    created_ns INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX views_manifest ON views (manifest_digest);

  CREATE TABLE leases (
    id TEXT PRIMARY KEY,
    created_ns INTEGER NOT NULL,
    expires_ns INTEGER,
    labels TEXT NOT NULL DEFAULT '{}'
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE lease_resources (
    lease TEXT NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
    type TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (lease, type, id)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX lease_resources_resource ON lease_resources (type, id);
  `,
  `
  -- AUTOINCREMENT: a directory's number must not come back while its predecessor is being removed.
  CREATE TABLE containerd_snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    parent_id INTEGER REFERENCES containerd_snapshots (id) ON DELETE RESTRICT,
    kind TEXT NOT NULL CHECK (kind IN ('committed', 'active', 'view')),
    size_bytes INTEGER,
    inodes INTEGER,
    labels TEXT NOT NULL DEFAULT '{}',
    created_ns INTEGER NOT NULL,
    updated_ns INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX containerd_snapshots_parent ON containerd_snapshots (parent_id);
  `,
  `
  -- What a person used last is what automatic collection takes last.
  CREATE TABLE image_uses (
    image_id TEXT PRIMARY KEY,
    used_ns INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE build_steps (
    key TEXT PRIMARY KEY,
    manifest_digest TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    used_ns INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  `,
  `
  -- The chain in snapshots whose directory a committed one of containerd's shares.
  ALTER TABLE containerd_snapshots ADD COLUMN chain_id TEXT;
  `,
  `
  -- Unpacked layers that are in use before the disk has them (see snapshots/late-sync.ts).
  CREATE TABLE unsynced_snapshots (
    name TEXT PRIMARY KEY REFERENCES snapshots (name) ON DELETE CASCADE,
    boot_id TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  `,
  `
  -- The I/O mode that the user asked for; empty: the daemon's default.
  ALTER TABLE views ADD COLUMN io TEXT NOT NULL DEFAULT ''
    CHECK (io IN ('', 'cached', 'passthrough', 'auto'));
  `,
  `
  -- Which views come back after the machine was started, and when they were mounted last.
  ALTER TABLE views ADD COLUMN restart TEXT NOT NULL DEFAULT 'no' CHECK (restart IN ('no', 'always'));
  ALTER TABLE views ADD COLUMN boot_id TEXT NOT NULL DEFAULT '';
  `,
];

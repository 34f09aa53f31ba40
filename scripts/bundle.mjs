// Bundles the command line into dist/cli.cjs.
//
// Start-up time decides the format: Node loads one CommonJS file faster than an ESM graph, and a
// lazily imported module costs nothing until its command runs. Fails when the bundle holds anything
// that belongs to the daemon.

import { statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const outfile = join(root, "dist/cli.cjs");
const FORBIDDEN_PACKAGES = ["@bufbuild", "@grpc", "better-sqlite3", "pino", "tar-stream", "undici"];
const MAX_BYTES = 400_000;

// The library's reflection costs 20 ms at start; the command line needs a tenth of it.
const LEAN_PROTOBUF = {
  "@bufbuild/protobuf": "messages.ts",
  "@bufbuild/protobuf/codegenv2": "codegen.ts",
  "@bufbuild/protobuf/wkt": "codegen.ts",
};
const leanProtobuf = {
  name: "lean-protobuf",
  setup(bundle) {
    bundle.onResolve({ filter: /^@bufbuild\/protobuf/ }, ({ path }) => {
      const file = LEAN_PROTOBUF[path];
      if (file === undefined) throw new Error(`no lean form of ${path}`);
      return { path: join(root, "src/cli/lean-protobuf", file) };
    });
  },
};

const result = await build({
  absWorkingDir: root,
  entryPoints: ["src/cli/main.ts"],
  outfile,
  bundle: true,
  platform: "node",
  target: "node20",
  format: "cjs",
  // Readable lines: a stack trace prints the line it points to, and a minified file is one line.
  minify: false,
  legalComments: "none",
  metafile: true,
  plugins: [leanProtobuf],
  logLevel: "warning",
  // What is beside the bundle is found through import.meta.url, which CommonJS does not have.
  define: { "import.meta.url": "bundleUrl" },
  banner: { js: 'const bundleUrl = require("node:url").pathToFileURL(__filename).href;' },
});

const inputs = Object.keys(result.metafile.inputs);
const forbidden = inputs.filter(
  (input) =>
    FORBIDDEN_PACKAGES.some((name) => input.includes(`node_modules/${name}/`)) ||
    // Of the daemon's rooms only these few files, which have no dependencies, may be here.
    (/^src\/(daemon|services|images|views|snapshots|layers|overlay|fuse|metadata)\//.test(input) &&
      !/^src\/(daemon\/(config|default-paths)|services\/(status|gen\/.*))\.ts$/.test(input)),
);
if (forbidden.length > 0) {
  throw new Error(`dist/cli.cjs holds what belongs to the daemon: ${forbidden.join(", ")}`);
}
const { size } = statSync(outfile);
if (size > MAX_BYTES) throw new Error(`dist/cli.cjs: ${size} bytes, more than ${MAX_BYTES}`);
console.log(`dist/cli.cjs: ${Math.round(size / 1000)} kB from ${inputs.length} files`);

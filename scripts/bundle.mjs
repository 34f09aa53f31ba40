// Bundles the command line into dist/cli.cjs, the process of `varve overlay` into dist/overlay.cjs, the
// daemon into dist/daemon/bundle, its worker threads into files beside their entries, and the page of `varve explore`
// into dist/explore/page.
//
// Start-up time decides the format: Node loads one CommonJS file faster than an ESM graph, and a
// lazily imported module costs nothing until its command runs. Fails when the command line's bundle holds anything
// that belongs to the daemon.

import { copyFileSync, readFileSync, rmSync, statSync } from "node:fs";
import { isBuiltin } from "node:module";
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
// Threads start when somebody waits for them: 48 ms of CPU time instead of 125.
const WORKERS = ["snapshots/layer-worker", "views/view-worker"];
const FORBIDDEN_PACKAGES = ["@bufbuild", "@grpc", "better-sqlite3", "pino", "tar-stream", "undici"];
const MAX_BYTES = 450_000;

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

/** Bundles one entry; the result's inputs are the source files that came in. */
async function bundle(entryPoint, outfile) {
  const result = await build({
    absWorkingDir: root,
    entryPoints: [entryPoint],
    outfile: join(root, outfile),
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
  const { size } = statSync(join(root, outfile));
  if (size > MAX_BYTES) throw new Error(`${outfile}: ${size} bytes, more than ${MAX_BYTES}`);
  console.log(`${outfile}: ${Math.round(size / 1000)} kB from ${inputs.length} files`);
  return inputs;
}

/** Fails when a bundle holds files that match. */
function forbid(outfile, inputs, isForbidden) {
  const forbidden = inputs.filter(isForbidden);
  if (forbidden.length > 0) throw new Error(`${outfile} must not hold ${forbidden.join(", ")}`);
}

const isHeavyPackage = (input) =>
  FORBIDDEN_PACKAGES.some((name) => input.includes(`node_modules/${name}/`));
// Of the daemon's rooms only these few files, which have no dependencies, may be in the command line.
const isDaemons = (input) =>
  /^src\/(daemon|services|images|views|snapshots|layers|overlay|fuse|metadata)\//.test(input) &&
  !/^src\/(daemon\/(config|default-paths)|services\/(status|gen\/.*))\.ts$/.test(input);

const cli = await bundle("src/cli/main.ts", "dist/cli.cjs");
forbid("dist/cli.cjs", cli, (input) => isHeavyPackage(input) || isDaemons(input));
const isPackage = (input) => input.startsWith("node_modules/");
const overlay = await bundle("src/views/overlay-process.ts", "dist/overlay.cjs");
forbid("dist/overlay.cjs", overlay, isPackage);
for (const worker of WORKERS) {
  const outfile = `dist/${worker}.cjs`;
  forbid(outfile, await bundle(`src/${worker}.ts`, outfile), isPackage);
}

// The daemon: programs in views wait for its first part when another one has died. What that part does not need stays
// in files of its own, which are loaded later (src/daemon/daemon.ts), and large packages stay where they are.
const DAEMON_BUNDLE = "dist/daemon/bundle";
/** Modules find what lies beside them as if they were still in files of their own. The entry means itself. */
const keepPlaces = {
  name: "keep-places",
  setup(bundle) {
    bundle.onLoad({ filter: /\/src\/.*\.ts$/ }, ({ path }) => {
      const source = readFileSync(path, "utf8");
      if (path.endsWith("src/daemon/main.ts")) return { contents: source, loader: "ts" };
      const compiled = join("dist", relative(join(root, "src"), path)).replace(/\.ts$/, ".js");
      const place = `new URL("${relative(DAEMON_BUNDLE, compiled)}", import.meta.url).href`;
      return { contents: source.replaceAll("import.meta.url", place), loader: "ts" };
    });
  },
};
/** By require: where a module imports CommonJS, Node.js first parses that for its exports, 15 ms long. */
const requireSqlite = {
  name: "require-sqlite",
  setup(bundle) {
    bundle.onResolve({ filter: /^better-sqlite3$/ }, ({ path, kind }) =>
      kind === "require-call" ? { path, external: true } : { path, namespace: "required" },
    );
    bundle.onLoad({ filter: /.*/, namespace: "required" }, ({ path }) => ({
      contents: `module.exports = require("${path}");`,
      resolveDir: root,
    }));
  },
};
rmSync(join(root, DAEMON_BUNDLE), { recursive: true, force: true });
const daemon = await build({
  absWorkingDir: root,
  entryPoints: ["src/daemon/main.ts"],
  outdir: join(root, DAEMON_BUNDLE),
  outExtension: { ".js": ".mjs" },
  bundle: true,
  splitting: true,
  platform: "node",
  target: "node20",
  format: "esm",
  minify: false,
  legalComments: "none",
  metafile: true,
  external: FORBIDDEN_PACKAGES.filter((name) => name !== "pino").flatMap((name) => [
    name,
    `${name}/*`,
  ]),
  plugins: [keepPlaces, requireSqlite],
  logLevel: "warning",
  // For packages that are CommonJS.
  banner: {
    js: 'import { createRequire as requireFrom } from "node:module"; const require = requireFrom(import.meta.url);',
  },
});
const outputs = Object.entries(daemon.metafile.outputs);
for (const [file, { bytes, inputs, imports }] of outputs) {
  console.log(`${file}: ${Math.round(bytes / 1000)} kB from ${Object.keys(inputs).length} files`);
  // The answers are what is loaded later.
  if (basename(file).startsWith("answers-")) continue;
  const packages = imports.filter(({ external, path }) => external && !isBuiltin(path));
  forbid(
    file,
    packages.map(({ path }) => path),
    (name) => name !== "better-sqlite3",
  );
}

// The page of `varve explore`: what a browser needs, and nothing from elsewhere.
const page = join(root, "dist/explore/page");
const { metafile } = await build({
  absWorkingDir: root,
  entryPoints: ["web/explore/main.ts"],
  outfile: join(page, "app.js"),
  bundle: true,
  platform: "browser",
  target: "es2023",
  format: "esm",
  minify: true,
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
});
forbid(
  "dist/explore/page/app.js",
  Object.keys(metafile.inputs),
  (input) => !input.startsWith("web/"),
);
for (const file of ["index.html", "app.css"]) {
  copyFileSync(join(root, "web/explore", file), join(page, file));
}
console.log(
  `dist/explore/page: ${Math.round(statSync(join(page, "app.js")).size / 1000)} kB of script`,
);

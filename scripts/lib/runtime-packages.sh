# What the daemon loads of npm's packages; sourced by the scripts that package varve.

# copy_packages PROJECT APP: those packages into APP/node_modules; not what compiles the addons, nor addons for
# another runtime (bare) that some packages bring.
copy_packages() {
  local modules name
  modules=$(readlink -f "$1/node_modules")
  runtime_packages "$modules" "$1" | while read -r name; do
    mkdir -p "$2/node_modules/$name"
    tar -C "$modules/$name" --hard-dereference --exclude=./prebuilds/'*'/'*.bare' --exclude=./deps --exclude=./src --exclude=./build/Release/obj \
      --exclude=./build/Release/.deps --exclude='./build/Release/*.a' --exclude='./build/Release/test_*' --exclude=./build/Release/obj.target -cf - . |
      tar -C "$2/node_modules/$name" -xf -
  done
}

# runtime_packages MODULES PROJECT: names of the packages that ours depend on, without the build tools.
runtime_packages() {
  node -e '
    const { readFileSync } = require("node:fs");
    const [modules, project] = process.argv.slice(1);
    const BUILD = new Set(["node-gyp", "node-addon-api", "prebuild-install"]);
    const seen = new Set();
    const visit = (file) => {
      const { dependencies = {} } = JSON.parse(readFileSync(file, "utf8"));
      for (const name of Object.keys(dependencies)) {
        if (BUILD.has(name) || seen.has(name)) continue;
        seen.add(name);
        visit(`${modules}/${name}/package.json`);
      }
    };
    visit(`${project}/package.json`);
    console.log([...seen].sort().join("\n"));
  ' "$1" "$2"
}

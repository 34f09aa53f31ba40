{
  "targets": [
    {
      "target_name": "varve_native",
      "sources": ["<!@(ls src/*.cc)"],
      "defines": [
        "NAPI_VERSION=9",
        # Failures are negative errno values, so nothing here throws or catches.
        "NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS",
        "_GNU_SOURCE",
        "_FILE_OFFSET_BITS=64",
      ],
      "cflags!": ["-O3"],
      "cflags": ["-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-fno-plt"],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20"],
      # node-addon-api is a system directory to the compiler: its warnings are not ours.
      "cflags_cc": ["-std=c++20", "-isystem", "<!(node -p \"path.dirname(require.resolve('node-addon-api'))\")"],
      # nodelete: Node.js unloads it with its last environment, and threads of ours may still be in it.
      "ldflags": ["-Wl,-z,relro,-z,now,-z,nodelete"],
      "variables": {"varve_sanitize%": "0"},
      "conditions": [
        ["varve_sanitize==1", {
          "cflags!": ["-O2"],
          "cflags": [
            "-O1", "-g", "-fno-omit-frame-pointer",
            "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
          ],
          "ldflags": ["-fsanitize=address,undefined"],
        }],
      ],
    },
    {
      # A program: it must outlive the process that the addon is in, and be small.
      "target_name": "varve-keeper",
      "type": "executable",
      "sources": ["keeper/main.cc"],
      "defines": ["_GNU_SOURCE"],
      "cflags!": ["-O3", "-pthread"],
      "cflags": ["-O2", "-Wall", "-Wextra", "-Werror"],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20"],
      "cflags_cc": ["-std=c++20"],
      "ldflags!": ["-rdynamic", "-pthread"],
      "ldflags": ["-Wl,-z,relro,-z,now"],
    }
  ]
}

/** Formatting: sizes, times, tables, terminal text, templates and lists. */

import { describe, expect, it } from "vitest";
import { familiarName, shortDigest, splitReference } from "../../../src/cli/image-names.js";
import { toJsonLine } from "../../../src/cli/json.js";
import { formatList, formatObject } from "../../../src/cli/list-output.js";
import { humanRate, humanSize } from "../../../src/cli/sizes.js";
import { alignColumns } from "../../../src/cli/tables.js";
import { compileTemplate } from "../../../src/cli/template.js";
import {
  displayWidth,
  printablePath,
  printableText,
  truncateText,
} from "../../../src/cli/terminal-text.js";
import { humanDuration, longTime, relativeTime, rfc3339 } from "../../../src/cli/times.js";

describe("humanSize", () => {
  it.each([
    [0, "0B"],
    [999, "999B"],
    [1000, "1kB"],
    [1020, "1.02kB"],
    [4_263_000, "4.26MB"],
    [12_345_678, "12.3MB"],
    [999_499, "999kB"],
    [999_500, "1MB"],
    [999_999_999, "1GB"],
    [1_254_321_000n, "1.25GB"],
    [2n ** 63n, "9.22EB"],
  ])("writes %s bytes as docker does", (bytes, text) => {
    expect(humanSize(bytes)).toBe(text);
  });

  it("never needs more than six characters", () => {
    for (let bytes = 1; bytes < 1e18; bytes = Math.ceil(bytes * 1.003)) {
      expect(humanSize(bytes).length).toBeLessThanOrEqual(6);
    }
  });

  it("writes rates", () => {
    expect(humanRate(45_200_000)).toBe("45.2MB/s");
  });
});

const SECOND = 1000;
const HOUR = 3600 * SECOND;
const DAY = 24 * HOUR;

describe("times", () => {
  it.each([
    [-5, "Less than a second"],
    [999, "Less than a second"],
    [SECOND, "1 second"],
    [59 * SECOND, "59 seconds"],
    [60 * SECOND, "About a minute"],
    [120 * SECOND, "2 minutes"],
    [HOUR, "About an hour"],
    [3 * HOUR, "3 hours"],
    [47 * HOUR, "47 hours"],
    [3 * DAY, "3 days"],
    [20 * DAY, "2 weeks"],
    [100 * DAY, "3 months"],
    [800 * DAY, "2 years"],
  ])("says %d ms in docker's words", (ms, text) => {
    expect(humanDuration(ms)).toBe(text);
  });

  const time = { seconds: 1_700_000_000n, nanos: 120_000_000 };

  it("writes a point in time for people and for programs", () => {
    expect(relativeTime(time, (1_700_000_000 + 7200) * 1000)).toBe("2 hours ago");
    expect(rfc3339(time)).toBe("2023-11-14T22:13:20.12Z");
    expect(longTime(time)).toBe("2023-11-14 22:13:20 +0000 UTC");
  });

  it("says that it does not know a time", () => {
    expect(relativeTime(undefined, 0)).toBe("N/A");
    expect(longTime(undefined)).toBe("N/A");
    expect(rfc3339(undefined)).toBe("");
  });

  it("survives a time that no calendar holds", () => {
    expect(rfc3339({ seconds: 2n ** 62n, nanos: 0 })).toBe("4611686018427387904s");
  });
});

describe("terminal text", () => {
  it("counts columns, not code units", () => {
    expect(displayWidth("abc")).toBe(3);
    expect(displayWidth("日本")).toBe(4);
    expect(displayWidth("e\u0301")).toBe(1);
    expect(displayWidth("🙂")).toBe(2);
  });

  it("cuts text to columns", () => {
    expect(truncateText("abcdef", 6)).toBe("abcdef");
    expect(truncateText("abcdef", 4)).toBe("abc…");
    expect(truncateText("日本語", 4)).toBe("日…");
    expect(truncateText("abc", 0)).toBe("");
  });

  it("leaves a path alone that is plain text", () => {
    expect(printablePath(Buffer.from("/etc/ünï \\x2d"))).toBe("/etc/ünï \\x2d");
  });

  it("quotes and escapes a path that is not", () => {
    expect(printablePath(Buffer.from('/a\n\xff\\"b', "latin1"))).toBe('"/a\\n\\xff\\\\\\"b"');
    expect(printablePath(Buffer.from("/\x1b[31mred"))).toBe('"/\\x1b[31mred"');
    expect(printablePath(Buffer.from([0x2f, 0xe2, 0x82, 0xac, 0xe2, 0x82]))).toBe('"/€\\xe2\\x82"');
  });

  it("never shows two different paths alike", () => {
    const names = ["/a\\n", "/a\n", '/"a"', '"/a"', "/\\xff", "/\xff", "/\\\\n"];
    const shown = new Set(names.map((name) => printablePath(Buffer.from(name, "latin1"))));
    expect(shown.size).toBe(names.length);
  });

  it("takes control characters out of messages", () => {
    expect(printableText("a\x1b[2Jb\u202ec")).toBe("a\\x1b[2Jb\\u202ec");
  });
});

describe("tables", () => {
  it("aligns columns by their width on the screen", () => {
    expect(
      alignColumns([
        ["NAME", "SIZE"],
        ["日本", "1"],
        ["longer-name", ""],
      ]),
    ).toEqual(["NAME          SIZE", "日本          1", "longer-name"]);
  });
});

describe("image names", () => {
  it.each([
    ["docker.io/library/busybox:latest", "busybox:latest"],
    ["docker.io/user/app:v1", "user/app:v1"],
    ["docker.io/library/a/b:v1", "library/a/b:v1"],
    ["ghcr.io/a/b:v1", "ghcr.io/a/b:v1"],
  ])("shows %s as docker does", (reference, familiar) => {
    expect(familiarName(reference)).toBe(familiar);
  });

  it("takes a reference apart", () => {
    expect(splitReference("localhost:5000/a:v1")).toEqual({
      repository: "localhost:5000/a",
      tag: "v1",
    });
    expect(splitReference("docker.io/library/a@sha256:00")).toEqual({
      repository: "a",
      tag: "<none>",
    });
  });

  it("shortens digests", () => {
    expect(shortDigest(`sha256:${"ab".repeat(32)}`)).toBe("abababababab");
  });
});

describe("templates", () => {
  const data = {
    Name: "box",
    Size: 12n,
    Empty: "",
    Tags: ["a", "b"],
    Config: { Cmd: ["sh", "-c"], Labels: new Map([["k", "v"]]), User: null },
  };
  const run = (source: string) => compileTemplate(source)(data);

  it.each([
    ["{{.Name}}", "box"],
    ["<{{ .Name }}>", "<box>"],
    ["{{.Name}}\\t{{.Size}}", "box\t12"],
    ["{{json .}}", toJsonLine(data)],
    ["{{json .Tags}}", '["a","b"]'],
    ["{{.Config.Cmd}}", "[sh -c]"],
    ["{{.Config.Labels}}", "map[k:v]"],
    ["{{.Config.Labels.k}}", "v"],
    ["{{.Config.Labels.missing}}", "<no value>"],
    ['{{index .Config.Labels "k"}}', "v"],
    ["{{index .Tags 1}}", "b"],
    ["{{.Config.User}}", "<no value>"],
    ['{{join .Tags ","}}', "a,b"],
    ["{{len .Tags}}", "2"],
    ["{{.Name | upper}}", "BOX"],
    ["{{.Name | upper | printf1}}", undefined],
    ["{{upper (index .Tags 0)}}", "A"],
    ["{{range .Tags}}[{{.}}]{{end}}", "[a][b]"],
    ["{{range .Tags}}{{println .}}{{end}}", "a\nb\n"],
    ["{{if .Empty}}yes{{else}}no{{end}}", "no"],
    ['{{if .Empty}}1{{else if eq .Name "box"}}2{{else}}3{{end}}', "2"],
    ["{{with .Config}}{{len .Cmd}}{{end}}", "2"],
    ["a {{- .Name -}} b", "aboxb"],
    ["{{/* note */}}x", "x"],
    ["{{`raw`}}{{true}}{{12}}", "rawtrue12"],
    ["{{not .Empty}}", "true"],
  ])("runs %s", (source, expected) => {
    if (expected === undefined) expect(() => run(source)).toThrow(/no function "printf1"/);
    else expect(run(source)).toBe(expected);
  });

  it("names the known fields when one is misspelt", () => {
    expect(() => run("{{.Nane}}")).toThrow(
      '--format: no field "Nane"; known fields: Config, Empty, Name, Size, Tags',
    );
  });

  it.each([
    "{{.Name",
    "{{if .Name}}",
    "{{end}}",
    "{{.Name .Size}}",
    "{{}}",
    "{{(.Name}}",
    "{{$x}}",
  ])("refuses %s as bad usage", (source) => {
    expect(() => run(source)).toThrowError(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
  });
});

describe("lists", () => {
  const layout = { headers: { ID: "IMAGE ID", Name: "NAME" }, columns: ["Name", "ID"] } as const;
  const rows = [
    { ID: "1", Name: "a" },
    { ID: "22", Name: "bb" },
  ];
  const list = (format?: string) => formatList(rows, layout, format);

  it("are tables by default", async () => {
    expect(await list()).toEqual(["NAME   IMAGE ID", "a      1", "bb     22"]);
    expect(await list("table")).toEqual(await list());
  });

  it("are one JSON object per line", async () => {
    expect(await list("json")).toEqual(['{"ID":"1","Name":"a"}', '{"ID":"22","Name":"bb"}']);
  });

  it("take templates, with and without a header", async () => {
    expect(await list("{{.ID}}:{{.Name}}")).toEqual(["1:a", "22:bb"]);
    expect(await list("table {{.ID}}\\t{{.Name}}")).toEqual([
      "IMAGE ID   NAME",
      "1          a",
      "22         bb",
    ]);
    expect(await list("table{{.ID}}")).toEqual(["IMAGE ID", "1", "22"]);
  });

  it("refuse a misspelt field even when they are empty", async () => {
    await expect(formatList([], layout, "{{.Nope}}")).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });

  it("format single objects too", async () => {
    expect(await formatObject({ A: 1n }, "json")).toBe('{"A":1}');
    expect(await formatObject({ A: 1n }, "{{.A}}")).toBe("1");
  });
});

import { describe, expect, it } from "vitest";
import { applyChanges } from "../../../src/images/change-instructions.js";
import type { ContainerConfig } from "../../../src/images/manifest.js";

const change = (base: ContainerConfig, ...changes: string[]) => applyChanges(base, changes);
const SECOND = 1e9;

describe("change instructions", () => {
  it.each<[string, ContainerConfig, ContainerConfig]>([
    ['CMD ["sh", "-c", "a b"]', {}, { Cmd: ["sh", "-c", "a b"] }],
    ["CMD echo $HOME | cat", {}, { Cmd: ["/bin/sh", "-c", "echo $HOME | cat"] }],
    ["CMD [ -f /x ] && y", {}, { Cmd: ["/bin/sh", "-c", "[ -f /x ] && y"] }],
    ["CMD []", { Cmd: ["x"] }, { Cmd: [] }],
    ["cmd=/bin/bash", {}, { Cmd: ["/bin/sh", "-c", "/bin/bash"] }],
    [
      "CMD x",
      { Shell: ["/bin/bash", "-ec"] },
      { Shell: ["/bin/bash", "-ec"], Cmd: ["/bin/bash", "-ec", "x"] },
    ],
    [
      "ENV A=1 B='two words' C=\"$A-x\"",
      { Env: ["A=0"] },
      { Env: ["A=1", "B=two words", "C=0-x"] },
    ],
    ["ENV NAME the whole rest", {}, { Env: ["NAME=the whole rest"] }],
    [
      "ENV PATH=/opt/bin:$PATH",
      { Env: ["PATH=/bin", "X=1"] },
      { Env: ["PATH=/opt/bin:/bin", "X=1"] },
    ],
    [
      "ENV A=$" + "{B:-none} C=$" + "{B:+set} D=\\$x E='$x'",
      {},
      { Env: ["A=none", "C=", "D=$x", "E=$x"] },
    ],
    ["ENV=A=1", {}, { Env: ["A=1"] }],
    ["ENV A=a\\ b", {}, { Env: ["A=a b"] }],
    [
      "EXPOSE 80 53/udp 8000-8002/TCP",
      { ExposedPorts: { "22/tcp": {} } },
      {
        ExposedPorts: {
          "22/tcp": {},
          "80/tcp": {},
          "53/udp": {},
          "8000/tcp": {},
          "8001/tcp": {},
          "8002/tcp": {},
        },
      },
    ],
    [
      'LABEL a=1 "b c"="d e"',
      { Labels: { a: "0", z: "9" } },
      { Labels: { a: "1", z: "9", "b c": "d e" } },
    ],
    [
      "LABEL __proto__=x",
      {},
      { Labels: JSON.parse('{"__proto__":"x"}') as Record<string, string> },
    ],
    ["ONBUILD RUN make $X", { OnBuild: ["COPY . ."] }, { OnBuild: ["COPY . .", "RUN make $X"] }],
    ["STOPSIGNAL sigquit", {}, { StopSignal: "SIGQUIT" }],
    ["STOPSIGNAL 9", {}, { StopSignal: "9" }],
    ["STOPSIGNAL SIGRTMIN+3", {}, { StopSignal: "SIGRTMIN+3" }],
    ["USER app:staff", {}, { User: "app:staff" }],
    ["USER $WHO", { Env: ["WHO=me"] }, { Env: ["WHO=me"], User: "me" }],
    ['VOLUME ["/a b", "/c"]', {}, { Volumes: { "/a b": {}, "/c": {} } }],
    ["VOLUME /a /b", { Volumes: { "/z": {} } }, { Volumes: { "/z": {}, "/a": {}, "/b": {} } }],
    ["WORKDIR /srv/../app/", {}, { WorkingDir: "/app" }],
    ["WORKDIR sub dir", { WorkingDir: "/app" }, { WorkingDir: "/app/sub dir" }],
    ["WORKDIR relative", {}, { WorkingDir: "/relative" }],
    [
      "HEALTHCHECK NONE",
      { Healthcheck: { Test: ["CMD", "x"] } },
      { Healthcheck: { Test: ["NONE"] } },
    ],
    [
      "HEALTHCHECK CMD curl -f x || exit 1",
      {},
      { Healthcheck: { Test: ["CMD-SHELL", "curl -f x || exit 1"] } },
    ],
    [
      'HEALTHCHECK --interval=1m30s --timeout=3s --start-period=500ms --retries=3 CMD ["/check"]',
      {},
      {
        Healthcheck: {
          Test: ["CMD", "/check"],
          Interval: 90 * SECOND,
          Timeout: 3 * SECOND,
          StartPeriod: SECOND / 2,
          Retries: 3,
        },
      },
    ],
  ])("%s", (text, before, after) => {
    expect(change(before, text)).toEqual({ ...before, ...after });
  });

  it("leave the base as it was", () => {
    const base: ContainerConfig = { Env: ["A=1"], Labels: { a: "1" } };
    change(base, "ENV A=2", "LABEL a=2", "EXPOSE 1");
    expect(base).toEqual({ Env: ["A=1"], Labels: { a: "1" } });
  });

  it("take effect in their order", () => {
    const result = change({}, "ENV A=1", "ENV B=$A", "WORKDIR /x", "WORKDIR y", "USER a", "USER b");
    expect(result).toEqual({ Env: ["A=1", "B=1"], WorkingDir: "/x/y", User: "b" });
  });

  it("keep a CMD that was given before the ENTRYPOINT, not the base's", () => {
    const both = change({ Cmd: ["old"] }, 'CMD ["new"]', 'ENTRYPOINT ["/e"]');
    expect(both).toEqual({ Cmd: ["new"], Entrypoint: ["/e"] });
    expect(change({ Cmd: ["old"] }, 'ENTRYPOINT ["/e"]')).toEqual({ Entrypoint: ["/e"] });
  });

  it.each([
    ["RUN make", /unknown instruction.*CMD, ENTRYPOINT, ENV/],
    ["", /unknown instruction/],
    ["constructor x", /unknown instruction/],
    ["ENV", /needs an argument/],
    ["ENV A", /NAME=value/],
    ["ENV A=1 B", /NAME=value/],
    ["ENV =1", /NAME=value/],
    ["ENV A='1", /without its end/],
    ["ENV A=${B", /\$\{NAME\}/],
    ["EXPOSE 0", /EXPOSE/],
    ["EXPOSE 70000", /EXPOSE/],
    ["EXPOSE 90-80", /EXPOSE/],
    ["EXPOSE 80/quic", /EXPOSE/],
    ["ONBUILD ONBUILD RUN x", /ONBUILD/],
    ["ONBUILD from x", /FROM/],
    ["STOPSIGNAL 65", /STOPSIGNAL/],
    ["STOPSIGNAL not a signal", /STOPSIGNAL/],
    ["USER two words", /exactly one/],
    ['VOLUME [""]', /empty/],
    ["HEALTHCHECK", /needs an argument/],
    ["HEALTHCHECK curl", /NONE/],
    ["HEALTHCHECK --interval=fast CMD x", /duration/],
    ["HEALTHCHECK --interval=1us CMD x", /duration/],
    ["HEALTHCHECK --retries=-1 CMD x", /number/],
    ["HEALTHCHECK --color=red CMD x", /--interval/],
    ["HEALTHCHECK --retries=1 NONE", /NONE/],
  ])("refuses %j", (text, message) => {
    expect(() => change({}, text)).toThrow(message);
    expect(() => change({}, text)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
  });
});

/** The Kubernetes manifests against the API's schemas, and against the daemon that they start. */

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { DaemonSet, type IDaemonSet } from "kubernetes-models/apps/v1";
import { RuntimeClass } from "kubernetes-models/node.k8s.io/v1";
import { Namespace } from "kubernetes-models/v1";
import { parse as parseToml } from "smol-toml";
import { describe, expect, it } from "vitest";
import { parse as parseYaml } from "yaml";
import { loadConfig } from "../../../src/daemon/config.js";
import { Snapshots } from "../../../src/services/gen/containerd/services/snapshots/v1/snapshots_pb.js";

const directory = path.resolve(import.meta.dirname, "../../../deploy/kubernetes");
const read = (name: string) => readFileSync(path.join(directory, name), "utf8");
const manifest = <T>(name: string) => parseYaml(read(name), { strict: true }) as T;
const kustomization = manifest<{
  resources: string[];
  configMapGenerator: { name: string; files: string[] }[];
  images: { name: string }[];
}>("kustomization.yaml");

/** What a validator never looks at is no field of the schema. */
function unreadFields(value: object, validate: (value: object) => void): string[] {
  const unread = new Set<string>();
  const watch = (object: object, where: string): object => {
    for (const key of Object.keys(object)) unread.add(`${where}.${key}`);
    return new Proxy(object, {
      get(target, key) {
        const found = Reflect.get(target, key) as unknown;
        if (typeof key === "symbol") return found;
        unread.delete(`${where}.${key}`);
        return typeof found === "object" && found !== null ? watched(target, key, where) : found;
      },
    });
  };
  const seen = new Map<object, object>();
  const watched = (parent: object, key: string, where: string): object => {
    const child = Reflect.get(parent, key) as object;
    const known = seen.get(child) ?? watch(child, `${where}.${key}`);
    seen.set(child, known);
    return known;
  };
  validate(watch(value, ""));
  return [...unread];
}

const KINDS = { DaemonSet, RuntimeClass, Namespace } as const;

function check(document: { kind: keyof typeof KINDS }): string[] {
  const { prototype } = KINDS[document.kind] as unknown as {
    prototype: { validate(this: object): void };
  };
  return unreadFields(document, (value) => prototype.validate.call(value));
}

const daemonSet = () => manifest<IDaemonSet>("daemonset.yaml");
const pod = () => daemonSet().spec!.template.spec!;
const container = () => pod().containers[0]!;

describe("the manifests", () => {
  it.each(kustomization.resources)(
    "%s is what the API takes, without a field that it ignores",
    (name) => {
      expect(check(manifest(name))).toEqual([]);
    },
  );

  it("that are wrong would be found", () => {
    const document = daemonSet();
    const probe = document.spec!.template.spec!.containers[0]!.livenessProbe!;
    Object.assign(probe, { periodSecond: 1 });
    expect(check(document as { kind: "DaemonSet" })).toEqual([
      expect.stringMatching(/livenessProbe\.periodSecond$/),
    ]);
    Object.assign(probe, { grpc: { port: "health" } });
    expect(() => check(document as { kind: "DaemonSet" })).toThrow(/port must be integer/);
  });

  it("are all in the kustomization, and it names nothing else", () => {
    const configs = kustomization.configMapGenerator.flatMap(({ files }) => files);
    const named = [...kustomization.resources, ...configs, "kustomization.yaml"];
    const snippets = readdirSync(directory).filter((name) => /^containerd-.*\.toml$/.test(name));
    expect(readdirSync(directory).sort()).toEqual([...named, ...snippets].sort());
    expect(pod().volumes!.flatMap(({ configMap }) => configMap?.name ?? [])).toEqual(
      kustomization.configMapGenerator.map(({ name }) => name),
    );
    expect(kustomization.images.map(({ name }) => name)).toEqual([container().image]);
  });

  it("ask for no rights in the cluster, and for all on the node", () => {
    expect(pod().automountServiceAccountToken).toBe(false);
    expect(container().securityContext).toEqual({ privileged: true });
    const [state] = container().volumeMounts!.filter(({ name }) => name === "state");
    expect(state!.mountPropagation).toBe("Bidirectional");
    const [content] = container().volumeMounts!.filter(({ name }) => name === "content");
    expect(content!.readOnly).toBe(true);
    // containerd is told paths: they have to be the same in the container and on the host.
    const hostPaths = new Map(pod().volumes!.map(({ name, hostPath }) => [name, hostPath?.path]));
    for (const { name, mountPath } of container().volumeMounts!) {
      if (hostPaths.get(name) !== undefined) expect(mountPath).toBe(hostPaths.get(name));
    }
  });
});

describe("the configuration", () => {
  const config = () => {
    const scratch = mkdtempSync(path.join(os.tmpdir(), "varve-deploy-"));
    try {
      const file = path.join(scratch, "config.toml");
      writeFileSync(file, read("config.toml"));
      return loadConfig({ config: file }, {});
    } finally {
      rmSync(scratch, { recursive: true });
    }
  };

  it("is one that the daemon takes, with sockets where they are mounted and probed", () => {
    const { root, state, containerdSocket, containerdAddress, healthAddress } = config();
    const mounted = container().volumeMounts!.map(({ mountPath }) => mountPath);
    for (const one of [root, state, containerdSocket!, containerdAddress!]) {
      expect(mounted.some((mount) => one === mount || one.startsWith(`${mount}/`))).toBe(true);
    }
    const { startupProbe, readinessProbe, livenessProbe } = container();
    for (const probe of [startupProbe, readinessProbe, livenessProbe]) {
      expect(healthAddress).toBe(`0.0.0.0:${probe!.grpc!.port}`);
    }
    expect(readinessProbe!.grpc!.service).toBe(Snapshots.typeName);
  });

  it.each(["containerd-1.7.toml", "containerd-2.toml"])("%s points containerd to it", (name) => {
    const { containerdSocket, root } = config();
    const { proxy_plugins: plugins } = parseToml(read(name)) as {
      proxy_plugins: Record<string, { type: string; address: string; exports?: object }>;
    };
    expect(plugins).toEqual({
      varve: { type: "snapshot", address: containerdSocket, exports: { root } },
      "varve-diff": { type: "diff", address: containerdSocket },
    });
    const handler = manifest<{ handler: string }>("runtime-class.yaml").handler;
    expect(read(name)).toContain(`containerd.runtimes.${handler}]`);
  });
});

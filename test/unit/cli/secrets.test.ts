import { expect, it } from "vitest";
import { withoutSecrets } from "../../../src/cli/secrets.js";

it.each([
  ["https://user:hunter2@registry/v2", "hunter2"],
  ["Authorization: Bearer abcdef.ghijkl", "abcdef"],
  ["authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"],
  ['{"password":"hunter2","name":"x"}', "hunter2"],
  ['{"identity_token": "with \\" quote hunter2"}', "hunter2"],
  ["REGISTRY_PASSWORD=hunter2 other=1", "hunter2"],
  ["--api-key=hunter2,", "hunter2"],
])("a debug bundle does not have the secret of %s", (text, secret) => {
  expect(withoutSecrets(text)).not.toContain(secret);
  expect(withoutSecrets(text)).toContain("[secret]");
});

it("and keeps what is none", () => {
  const text =
    '{"level":"info","msg":"view x mounted on /run/varve/views/1/rootfs","digest":"sha256:ab"}';
  expect(withoutSecrets(text)).toBe(text);
});

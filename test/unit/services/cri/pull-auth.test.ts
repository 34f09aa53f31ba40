/** Which of the credentials that a kubelet sends are used, and for which registry. */

import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { pullCredentials } from "../../../../src/services/cri/pull-auth.js";
import { AuthConfigSchema } from "../../../../src/services/gen/runtime/v1/image_pb.js";

const DOMAIN = "registry.example:5000";
const ALL = {
  username: "user",
  password: "secret",
  identityToken: "identity",
  auth: Buffer.from("other:word:with:colons").toString("base64"),
  registryToken: "registry",
};

const credentials = (auth: Partial<typeof ALL> & { serverAddress?: string }, domain = DOMAIN) =>
  pullCredentials(create(AuthConfigSchema, auth), domain);

const without = (...keys: (keyof typeof ALL)[]) =>
  Object.fromEntries(
    Object.entries(ALL).filter(([key]) => !keys.includes(key as keyof typeof ALL)),
  );

describe("credentials of a pull", () => {
  it("are name and password, else an identity token, else both in one, else a registry's token", () => {
    expect(credentials(ALL)).toEqual({ username: "user", password: "secret" });
    expect(credentials(without("username", "password"))).toEqual({ identityToken: "identity" });
    expect(credentials(without("username", "password", "identityToken"))).toEqual({
      username: "other",
      password: "word:with:colons",
    });
    expect(credentials({ registryToken: "registry" })).toEqual({ registryToken: "registry" });
  });

  it("are for the registry that they name, however it is spelled", () => {
    for (const serverAddress of [
      "",
      DOMAIN,
      `https://${DOMAIN}/v2/`,
      "http://Registry.Example:5000",
    ]) {
      expect(credentials({ ...ALL, serverAddress }), serverAddress).toBeDefined();
    }
    for (const serverAddress of ["registry.example", "registry.example:443", "other:5000", "::"]) {
      expect(credentials({ ...ALL, serverAddress }), serverAddress).toBeUndefined();
    }
    expect(
      credentials({ ...ALL, serverAddress: "https://index.docker.io/v1/" }, "docker.io"),
    ).toBeDefined();
  });

  it("may be none; something that is of no use is an error", () => {
    expect(pullCredentials(undefined, DOMAIN)).toBeUndefined();
    expect(credentials({})).toBeUndefined();
    const useless = [{ password: "alone" }, { serverAddress: DOMAIN }, { auth: "!" }];
    for (const auth of useless) {
      expect(() => credentials(auth)).toThrow(
        expect.objectContaining({ code: "INVALID_ARGUMENT" }),
      );
    }
  });
});

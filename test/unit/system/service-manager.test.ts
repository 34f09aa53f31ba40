import { expect, it } from "vitest";
import { isRestartJob, unitOf } from "../../../src/system/service-manager.js";

it.each([
  ["unified", "0::/system.slice/varve.service\n"],
  ["below a cgroup of its own", "0::/system.slice/varve.service/supervised\n"],
  ["version 1", "12:pids:/system.slice/x.service\n1:name=systemd:/system.slice/varve.service\n"],
  ["both", "1:name=systemd:/system.slice/varve.service\n0::/\n"],
])("a process's service is read from its cgroups: %s", (_, cgroups) => {
  expect(unitOf(cgroups)).toEqual({ name: "varve.service", isOfUser: false });
});

it("a service of a user's own manager is told apart", () => {
  const of = "/user.slice/user-1000.slice/user@1000.service";
  expect(unitOf(`0::${of}/app.slice/varve.service`)).toEqual({
    name: "varve.service",
    isOfUser: true,
  });
  expect(unitOf(`0::${of}`)).toEqual({ name: "user@1000.service", isOfUser: false });
});

it("a process in no service has none", () => {
  expect(unitOf("4:memory:/a.service\n0::/user.slice/session-1.scope\n")).toBeUndefined();
  expect(unitOf("0::/\n")).toBeUndefined();
});

it("only a restart is one, not a stop, nor the silence of a manager without a job", () => {
  expect(isRestartJob("117 varve.service restart running\n")).toBe(true);
  expect(isRestartJob("117 varve.service stop running\n")).toBe(false);
  expect(isRestartJob("")).toBe(false);
});

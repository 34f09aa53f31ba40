import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    // Most tests wait for programs and disks half of their time: two files side by side use two cores well.
    // More would make those that measure memory or wait for the kernel unsteady, so it is two on any machine.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});

/**
 * Reads what vitest wrote of the suites (its JSON reporter's files).
 *
 *   test-report.mjs failed-files SUITE.json      the test files that failed, a line each
 *   test-report.mjs summary DIRECTORY STEP…      every failed test with its message, then "N passed, N failed";
 *                                                the named steps failed. Exit code 0 when nothing did.
 *
 * DIRECTORY has SUITE.json and, where failed files ran once more, SUITE.again.json: its word counts.
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";

const MESSAGE_LINES = 12;
/** Lines of a stack that say nothing about the test. */
const NOT_OURS = /^\s+at (.*node_modules|new Promise \()/;

const read = (file) => JSON.parse(readFileSync(file, "utf8"));
const nameOf = (file) => path.relative(process.cwd(), file.name);

/** Failed tests of a run by "file > test"; a file that did not even load counts as one. */
function failuresOf(run) {
  const failures = new Map();
  for (const file of run.testResults) {
    const failed = file.assertionResults.filter(({ status }) => status === "failed");
    for (const test of failed) {
      failures.set(`${nameOf(file)} > ${test.fullName}`, test.failureMessages.join("\n"));
    }
    if (file.status === "failed" && failed.length === 0) failures.set(nameOf(file), file.message);
  }
  return failures;
}

const readAgain = (file) => (existsSync(file) ? read(file) : undefined);

const passedIn = (files) =>
  files.flatMap((file) => file.assertionResults).filter(({ status }) => status === "passed").length;

function print(title, failures) {
  if (failures.size === 0) return;
  console.log(title);
  for (const [name, message] of failures) {
    const lines = message.split("\n").filter((line) => line.trim() && !NOT_OURS.test(line));
    console.log(
      `  ${name}\n${lines
        .slice(0, MESSAGE_LINES)
        .map((line) => `      ${line}`)
        .join("\n")}`,
    );
  }
}

function summary(directory, failedSteps) {
  const failed = new Map();
  // A suite that has no failed test to show for it (it did not end, say) counts as a failure itself.
  const unexplained = new Set(failedSteps);
  const unsteady = new Map();
  let passed = 0;
  for (const file of readdirSync(directory).filter((name) => !name.endsWith(".again.json"))) {
    const first = read(path.join(directory, file));
    const again = readAgain(path.join(directory, file.replace(/\.json$/, ".again.json")));
    const firstFailures = failuresOf(first);
    const lastFailures = again === undefined ? firstFailures : failuresOf(again);
    const replaced = new Set(again?.testResults.map(nameOf));
    const counted = first.testResults.filter((result) => !replaced.has(nameOf(result)));
    passed += passedIn(counted) + passedIn(again?.testResults ?? []);
    for (const [name, message] of firstFailures) {
      if (!lastFailures.has(name)) unsteady.set(name, message);
    }
    for (const [name, message] of lastFailures) failed.set(name, message);
    if (lastFailures.size > 0) unexplained.delete(path.basename(file, ".json"));
  }
  print("passed only when their file ran once more:", unsteady);
  print("failed:", failed);
  const failures = failed.size + unexplained.size;
  console.log(`${passed} passed, ${failures} failed`);
  return failures > 0 || passed === 0 ? 1 : 0;
}

const [command, ...given] = process.argv.slice(2);
if (command === "failed-files") {
  const failed = read(given[0]).testResults.filter(({ status }) => status === "failed");
  for (const file of failed) console.log(nameOf(file));
} else {
  process.exitCode = summary(given[0], given.slice(1));
}

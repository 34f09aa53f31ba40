import { expect, it } from "vitest";
import { joinRunWords } from "../../../src/cli/run-words.js";

const join = (...words: string[]) => joinRunWords(["build-step", ...words]).slice(1);

it.each([
  [
    ["i", "--run", "make all", "-q"],
    ["i", '--run=["make all","-q"]'],
  ],
  [
    ["i", "--run", "make", "--commit", "x"],
    ["i", "--run=make", "--commit", "x"],
  ],
  [
    ["i", "--run", "sh", "-c", "a b", "--commit", "x"],
    ["i", '--run=["sh","-c","a b"]', "--commit", "x"],
  ],
  [
    ["-q", "i", "--run", "a", "b"],
    ["-q", "i", '--run=["a","b"]'],
  ],
  [
    ["i", "--run", "a", "b", "--run", "c"],
    ["i", '--run=["a","b"]', "--run=c"],
  ],
  [
    ["i", "--run"],
    ["i", "--run"],
  ],
])("%j joins to %j", (given, joined) => {
  expect(join(...given)).toEqual(joined);
});

it.each([
  [["--run", "make", "image", "--commit", "x"]],
  [["--commit", "x", "--run", "make", "image"]],
  [["-t", "x", "-q", "--run", "make", "image"]],
  [["i", "--run=make", "b"]],
  [["i", "--", "--run", "a", "b"]],
])("%j stays, since the image comes after it or nothing is to join", (given) => {
  expect(join(...given)).toEqual(given);
});

it("leaves other commands alone", () => {
  expect(joinRunWords(["pull", "--run", "a", "b"])).toEqual(["pull", "--run", "a", "b"]);
});

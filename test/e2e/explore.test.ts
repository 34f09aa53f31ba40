/**
 * `varve explore` as a person has it: the page in a real browser, with mouse and keys, and the tree in the terminal.
 * VARVE_SCREENSHOTS=DIR keeps pictures of the page.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import http from "node:http";
import { join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { makeImage, PROJECT, Sandbox, shell } from "./sandbox.js";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const MANY_FILES = 60_000;

let sandbox: Sandbox;
let browser: Browser;
const servers: ChildProcess[] = [];

/** Three layers: the base, an application, and one that changes, renames and removes. */
beforeAll(async () => {
  sandbox = new Sandbox("explore");
  sandbox.varve("load", "-q", "-i", makeImage("busybox", sandbox.path("busybox.tar")));
  const first = sandbox.mount("busybox", "first");
  shell(
    `mkdir -p srv/app && head -c 300000 /dev/zero | tr '\\0' z > srv/app/data
     seq 1 60 > srv/app/list && echo old > srv/app/gone && chmod 600 etc/passwd`,
    { cwd: first },
  );
  sandbox.varve("commit", "-q", "first", "app:1");
  const second = sandbox.mount("app:1", "second");
  shell(
    `head -c 200000 /dev/zero | tr '\\0' y > srv/app/data
     sed -i 's/^30$/thirty/' srv/app/list && rm srv/app/gone && echo new > srv/app/'<b>new'`,
    { cwd: second },
  );
  sandbox.varve("commit", "-q", "second", "app:2");
  sandbox.mount("app:2", "live");
  browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: FLAGS });
});

afterEach(async () => {
  for (const context of browser.contexts()) await context.close();
  for (const server of servers.splice(0)) server.kill();
});

afterAll(async () => {
  await browser?.close();
  sandbox?.dispose();
});

/** Starts `varve explore`; the page's address. */
function explore(...args: string[]): Promise<string> {
  const server = spawn(join(PROJECT, "bin/varve"), ["explore", ...args], {
    env: { ...process.env, ...sandbox.env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  servers.push(server);
  return new Promise((resolve, reject) => {
    server.stdout.once("data", (text: Buffer) => resolve(text.toString().trim()));
    server.once("exit", (code) => reject(new Error(`varve explore ended with ${code}`)));
  });
}

async function open(url: string, colorScheme: "light" | "dark" = "light"): Promise<Page> {
  const page = await browser.newPage({ viewport: { width: 1400, height: 860 }, colorScheme });
  page.on("pageerror", (error) => {
    throw error;
  });
  await page.goto(url);
  await page.waitForSelector("body[data-ready]");
  return page;
}

async function picture(page: Page, name: string): Promise<void> {
  const directory = process.env.VARVE_SCREENSHOTS;
  if (directory === undefined) return;
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, `${name}.png`), await page.screenshot());
}

const rows = (page: Page) => page.locator("#panel .row .name").allTextContents();

describe("the page", () => {
  it("shows layers, the merged tree, and what a layer did", async () => {
    const page = await open(await explore("app:2"));
    expect(await page.locator(".layer .top span:first-child").allTextContents()).toEqual([
      "Layer 1",
      "Layer 2",
      "Layer 3",
    ]);
    expect(await page.locator("#summary").textContent()).toMatch(/MB in \d+ files, 3 layers/);
    expect(await rows(page)).toContain("srv/");
    await page.keyboard.press("c");
    expect(await rows(page)).toEqual(["srv/"]);
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowRight");
    await page.locator(".row", { hasText: "app/" }).click();
    expect(await rows(page)).toEqual(["srv/", "app/", "<b>new", "data", "gone", "list"]);
    expect(await page.locator(".row.D .name").allTextContents()).toEqual(["gone"]);
    expect(await page.locator(".row.C .name").allTextContents()).toEqual(["data", "list"]);
    await picture(page, "changes");
    await page.keyboard.press("[");
    expect(await page.locator(".layer[aria-selected=true] .top").textContent()).toContain(
      "Layer 2",
    );
    expect(await page.locator(".row.A .name").allTextContents()).toContain("gone");
  });

  it("shows a file's history, its content and the difference of two versions", async () => {
    const page = await open(await explore("app:2"));
    await page.keyboard.press("/");
    await page.keyboard.type("app/list");
    await page.keyboard.press("Enter");
    await page.keyboard.press("ArrowDown");
    await page.waitForSelector("#details tr:nth-child(2)");
    expect(await page.locator("#details h2").textContent()).toBe("/srv/app/list");
    expect(await page.locator("#details td:nth-child(2)").allTextContents()).toEqual([
      "added",
      "changed",
    ]);
    await page.locator("#details pre", { hasText: "thirty" }).waitFor();
    await page.getByRole("button", { name: "diff" }).click();
    await page.waitForSelector("#details .plus");
    expect(await page.locator("#details .minus").allTextContents()).toEqual(["- 30"]);
    expect(await page.locator("#details .plus").allTextContents()).toEqual(["+ thirty"]);
    await picture(page, "history");
  });

  it("shows wasted bytes, and a treemap that is drawn and can be entered", async () => {
    const page = await open(await explore("app:2"), "dark");
    await page.keyboard.press("3");
    expect((await rows(page)).slice(0, 2)).toEqual(["/srv/app/data", "/srv/app/list"]);
    await picture(page, "wasted-dark");
    await page.keyboard.press("2");
    const canvas = page.locator("canvas");
    const colors = await canvas.evaluate((element) => {
      const { width, height } = element as unknown as { width: number; height: number };
      type Context = { getImageData(...area: number[]): { data: Uint8ClampedArray } };
      const context = (element as unknown as { getContext(kind: "2d"): Context }).getContext("2d");
      const { data } = context.getImageData(0, 0, width, height);
      return new Set(new Uint32Array(data.buffer)).size;
    });
    expect(colors).toBeGreaterThan(4);
    await picture(page, "treemap-dark");
    await canvas.hover({ position: { x: 400, y: 300 } });
    expect(await page.locator("#hints").textContent()).toMatch(/^\/.* (MB|kB) .*layer \d$/);
    expect(await page.evaluate("getComputedStyle(document.body).backgroundColor")).toBe(
      "rgb(22, 25, 29)",
    );
  });

  it("compares two images", async () => {
    const page = await open(await explore("app:1", "app:2"));
    await page.keyboard.press("4");
    await page.locator(".row", { hasText: "/srv/app/gone" }).waitFor();
    expect(await rows(page)).toEqual([
      "/srv/app/<b>new",
      "/srv/app/data",
      "/srv/app/gone",
      "/srv/app/list",
    ]);
    expect(await page.locator("#panel .mark").allTextContents()).toEqual(["A", "C", "D", "C"]);
    await picture(page, "compare");
  });

  it("follows a view while programs write in it", async () => {
    const page = await open(await explore("live"));
    await page.keyboard.press("4");
    await page.getByText("changes", { exact: false }).first().waitFor();
    shell("echo hello > srv/app/while-watched; rm srv/app/data", {
      cwd: sandbox.varve("inspect", "live", "--format", "{{.Target}}"),
    });
    await page.getByText("/srv/app/while-watched").waitFor();
    expect(await page.locator(".live .D .name").allTextContents()).toEqual(["/srv/app/data"]);
    // What the view was asked for meanwhile, per second, is above the changes.
    await page.getByText("operations/s").waitFor();
    const view = sandbox.varve("inspect", "live", "--format", "{{.Target}}");
    shell("for n in $(seq 300); do echo $n > busy-$n; done", { cwd: view });
    await page.locator(".figures span", { hasText: /[1-9]\d*operations/ }).waitFor();
    await picture(page, "live");
    await page.keyboard.press("r");
    await page.waitForSelector(".layer:nth-child(4)");
    expect(await page.locator(".layer:last-child .command").textContent()).toBe(
      "changes in view live",
    );
  });

  it("scrolls an image of 60,000 files with few elements", async () => {
    loadManyFiles();
    const page = await open(await explore("app:many"));
    await page.keyboard.press("/");
    await page.keyboard.type("file-0");
    await page.keyboard.press("Enter");
    await page.keyboard.press("End");
    expect((await rows(page)).at(-1)).toBe(`/m/file-0${MANY_FILES}`);
    expect(await page.locator("#panel .row").count()).toBeLessThan(100);
  }, 180_000);
});

/** Loads app:many, whose only layer has the files. */
function loadManyFiles(): void {
  const directory = sandbox.makeDirectory("many");
  shell(
    `mkdir tree tree/m && cd tree/m && seq -f 'file-%06g' ${MANY_FILES} | xargs touch && cd ../..
     tar -C tree -cf layer.tar m && rm -r tree
     printf '[{"Config":"c.json","RepoTags":["app:many"],"Layers":["layer.tar"]}]' > manifest.json
     printf '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \\
       "$(sha256sum < layer.tar | cut -c-64)" > c.json
     tar -cf ../many.tar manifest.json c.json layer.tar`,
    { cwd: directory },
  );
  sandbox.varve("load", "-q", "-i", sandbox.path("many.tar"));
}

describe("the server", () => {
  /** The status of a request with the given Host header. */
  function status(url: string, method = "GET", host?: string): Promise<number> {
    return new Promise((resolve, reject) => {
      const headers = host === undefined ? {} : { host };
      const request = http.request(url, { method, headers }, (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      request.once("error", reject).end();
    });
  }

  it("answers nobody without its token, or under another name, and takes nothing but GET", async () => {
    const url = await explore("app:2");
    const { origin } = new URL(url);
    expect(await status(url)).toBe(200);
    expect(await status(`${origin}/`)).toBe(404);
    expect(await status(`${origin}/wrong/api/tree?subject=0`)).toBe(404);
    expect(await status(url, "GET", "attacker.example")).toBe(404);
    expect(await status(url, "POST")).toBe(405);
    expect(await status(`${url}api/tree?subject=7`)).toBe(404);
    expect(await status(`${url}api/content?subject=0&node=x&layer=0`)).toBe(400);
    expect(await status(`${url}../../etc/passwd`)).toBe(404);
  });

  it("keeps its image while it runs, and no longer", async () => {
    const url = await explore("app:1");
    expect(await status(url)).toBe(200);
    expect(sandbox.varve("lease", "ls", "--format", "{{.Labels}}")).toMatch(/explore=\d+/);
    const [server] = servers;
    const ended = new Promise((resolve) => server?.once("exit", resolve));
    server?.kill("SIGINT");
    expect(await ended).toBe(130);
    expect(sandbox.varve("lease", "ls", "--format", "{{.Labels}}")).toBe("");
  });
});

describe("explore --tree", () => {
  it("prints layers, tree and wasted bytes", () => {
    const text = sandbox.varve("explore", "--tree", "app:2", "--depth", "2");
    expect(text).toMatch(/^layer {3}1 .*\+\d+ ~0 -0 .*make-image/m);
    expect(text).toMatch(/^ +200kB +app\/$/m);
    expect(text).toMatch(/^wasted: 300kB in 4 files/m);
  });

  it("prints what one layer did, and refuses one that is not there", () => {
    const text = sandbox.varve("explore", "--tree", "app:2", "--layer", "3", "--depth", "5");
    expect(text).toMatch(/^A +4B +<b>new$/m);
    expect(text).toMatch(/^D +0B +gone$/m);
    expect(text).not.toContain(" bin/");
    const { status, stderr } = sandbox.try("explore", "--tree", "app:2", "--layer", "9");
    expect(stderr).toContain("there are 3 layers");
    expect(status).toBe(2);
  });

  it("says that there is no such image", () => {
    const { status, stderr } = sandbox.try("explore", "missing");
    expect(stderr).toContain("missing");
    expect(status).toBe(1);
  });
});

// What the page is opened with: the browser, the library that drives it, a server.

import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export const ROOT = path.resolve(fileURLToPath(import.meta.url), "..", "..", "..");
const PLAYWRIGHT = "1.65.1";

export function chromium() {
  const which = (...names) => {
    const command = names.map((name) => `command -v ${name}`).join(" || ");
    return spawnSync("sh", ["-c", command], { encoding: "utf8" }).stdout.trim();
  };
  const browser = () => which("chromium", "chromium-browser", "google-chrome");
  if (browser() || process.getuid?.() !== 0 || !which("apt-get")) return browser();
  console.log("installing chromium");
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  for (const command of [["update"], ["install", "-y", "--no-install-recommends", "chromium"]]) {
    spawnSync("apt-get", ["-q", "-o", "DPkg::Lock::Timeout=120", ...command], { env, stdio: "ignore" });
  }
  return browser();
}

export function playwright() {
  const folder = path.join(ROOT, "target", "server-in-browser");
  const load = () => createRequire(path.join(folder, "x.js"))("playwright-core");
  const version = path.join(folder, "node_modules", "playwright-core", "package.json");
  if (fs.existsSync(version) && JSON.parse(fs.readFileSync(version)).version === PLAYWRIGHT) return load();
  console.log("installing playwright-core");
  fs.mkdirSync(folder, { recursive: true });
  const flags = ["--prefix", folder, "--no-audit", "--no-fund", "--no-save", "--ignore-scripts"];
  const done = spawnSync("npm", ["install", ...flags, `playwright-core@${PLAYWRIGHT}`], { encoding: "utf8" });
  if (done.status === 0) return load();
  console.error((done.stderr ?? String(done.error)).trim().split("\n").slice(-5).join("\n"));
  return null;
}

/** A server and its address. */
export async function serve(binary, env, log, ...options) {
  const out = fs.openSync(log, "w");
  const server = spawn(binary, ["serve", "--port", "0", ...options], { env, stdio: ["ignore", "pipe", out] });
  const ended = new Promise((resolve) => server.once("exit", resolve));
  const line = await Promise.race([
    new Promise((resolve) => createInterface(server.stdout).once("line", resolve)),
    ended,
    new Promise((resolve) => setTimeout(resolve, 120_000, "").unref()),
  ]);
  if (!String(line).startsWith("http://")) {
    server.kill();
    throw new Error(`the server did not start: ${fs.readFileSync(log, "utf8")}`);
  }
  const stop = async () => {
    server.kill();
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 20_000).unref())]);
    server.kill("SIGKILL");
  };
  return { url: line.trim(), stop };
}

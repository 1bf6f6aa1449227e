// node tests/e2e/run.mjs [WORD…]: runs every test, or those whose name contains a word. Logs and pictures: target/e2e.
import fs from 'node:fs';
import path from 'node:path';
import { closeBrowsers, Page } from './lib/browser.mjs';
import { readStats } from './lib/inpage.mjs';
import { HERE, OUT } from './lib/paths.mjs';
import { Server } from './lib/server.mjs';
import { SdkPeer } from './lib/sdk.mjs';

const TEST_LIMIT_MS = 150_000;

/** What a test gets: things that are cleared away, and photographed when it fails, at its end. */
class Context {
  constructor(name) {
    this.folder = path.join(OUT, name.replace(/[^\w]+/g, '-').slice(0, 90));
    this.pages = [];
    this.peers = [];
    this.cleanups = [];
    fs.mkdirSync(this.folder, { recursive: true });
  }

  async server(extra) {
    const server = await Server.start(this.folder, extra);
    this.cleanups.push(() => server.stop());
    return server;
  }

  async page(kind, options) {
    const page = await Page.open(kind, options);
    this.pages.push(page);
    this.cleanups.push(() => page.close());
    return page;
  }

  async sdk(language, options) {
    const peer = await SdkPeer.start(language, this.folder, options);
    this.peers.push(peer);
    this.cleanups.push(() => peer.leave());
    return peer;
  }

  file(name) {
    return path.join(this.folder, name);
  }

  /** A picture, the console and the statistics of every page, and the Python SDK's statistics in its log. */
  async keepEvidence() {
    for (const peer of this.peers) await peer.keepStats();
    for (const [index, page] of this.pages.entries()) {
      const stem = this.file(`${index}-${page.kind}-${page.name ?? 'page'}`);
      await page.screenshot(`${stem}.png`).catch(() => {});
      fs.writeFileSync(`${stem}.log`, page.console.join('\n'));
      const stats = await page.evaluate(readStats).catch((error) => String(error));
      fs.writeFileSync(`${stem}.stats.json`, JSON.stringify(stats, null, 1));
    }
  }

  async close() {
    for (const cleanup of this.cleanups.reverse()) await limited(15_000, cleanup()).catch(() => {});
  }
}

function limited(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`took more than ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function runOne(name, test) {
  const started = Date.now();
  const context = new Context(name);
  let failure;
  try {
    await limited(test.limitMs ?? TEST_LIMIT_MS, test(context));
  } catch (error) {
    failure = error;
    await limited(15_000, context.keepEvidence()).catch(() => {});
  }
  await context.close();
  const took = Date.now() - started;
  console.log(`${failure ? 'FAIL' : 'ok  '} ${name} (${took} ms)`);
  if (failure) {
    console.log(`     ${String(failure.message ?? failure).replaceAll('\n', '\n     ')}`);
    console.log(`     see ${path.relative(process.cwd(), context.folder)}`);
    fs.writeFileSync(context.file('failure.txt'), String(failure.stack ?? failure));
  }
  return !failure;
}

const words = process.argv.slice(2).map((word) => word.toLowerCase());
const tests = new Map();
for (const file of fs.readdirSync(HERE).filter((file) => file.endsWith('.e2e.mjs')).sort()) {
  const module = await import(path.join(HERE, file));
  for (const [name, test] of Object.entries(module.tests)) tests.set(name, test);
}
fs.rmSync(OUT, { recursive: true, force: true });

const counts = { passed: 0, failed: 0 };
for (const [name, test] of tests) {
  if (words.length > 0 && !words.some((word) => name.toLowerCase().includes(word))) continue;
  counts[(await runOne(name, test)) ? 'passed' : 'failed'] += 1;
}
await limited(15_000, closeBrowsers()).catch(() => {});
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exit(counts.failed === 0 && counts.passed > 0 ? 0 : 1);

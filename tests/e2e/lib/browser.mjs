import { createRequire } from 'node:module';
import fs from 'node:fs';
import os from 'node:os';
import { trustForChromium, trustForFirefox } from './trust.mjs';
import { check, until, Waiting } from './wait.mjs';
import * as inpage from './inpage.mjs';

const require = createRequire(import.meta.url);

export const OWN_ADDRESSES = Object.values(os.networkInterfaces())
  .flat()
  .map((entry) => entry.address);

/** Nothing but this machine is reached; camera and microphone are made up; sound plays without a click. */
const CHROMIUM_ARGS = [
  '--headless=new',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-domain-reliability',
  '--no-proxy-server',
  `--host-resolver-rules=MAP * ~NOTFOUND , ${['localhost', ...OWN_ADDRESSES].map((host) => `EXCLUDE ${host}`).join(' , ')}`,
  '--autoplay-policy=no-user-gesture-required',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--auto-select-desktop-capture-source=Entire screen',
];

/** Firefox as shipped where ICE is concerned; only the camera is made up and its own services are kept silent. */
const FIREFOX_PREFS = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.autoplay.default': 0,
  'app.update.enabled': false,
  'datareporting.healthreport.uploadEnabled': false,
  'toolkit.telemetry.enabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'browser.safebrowsing.phishing.enabled': false,
  'media.gmp-manager.updateEnabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'services.settings.server': 'http://127.0.0.1:9',
  'browser.region.network.url': '',
  'extensions.getAddons.cache.enabled': false,
  'network.proxy.type': 1,
  'network.proxy.http': '127.0.0.1',
  'network.proxy.http_port': 9,
  'network.proxy.ssl': '127.0.0.1',
  'network.proxy.ssl_port': 9,
  // ICE over TCP goes through a proxy as well, so this machine's addresses are all excepted.
  'network.proxy.no_proxies_on': ['127.0.0.1', 'localhost', ...OWN_ADDRESSES].join(','),
};

const firstExisting = (paths) => paths.find((path) => fs.existsSync(path)) ?? paths[0];

let chromium;
let firefox;

/** One Chromium and one Firefox serve all tests; each participant gets a context of its own. */
async function chromiumBrowser() {
  chromium ??= launchChromium();
  return chromium;
}

async function launchChromium() {
  return require('playwright-core').chromium.launch({
    executablePath: firstExisting(['/usr/bin/chromium', '/usr/bin/google-chrome']),
    args: CHROMIUM_ARGS,
    env: { ...process.env, HOME: await trustForChromium() },
    ignoreDefaultArgs: ['--mute-audio'],
  });
}

async function firefoxBrowser() {
  firefox ??= launchFirefox();
  return firefox;
}

async function launchFirefox() {
  return require('puppeteer-core').launch({
    browser: 'firefox',
    executablePath: firstExisting(['/usr/bin/firefox-esr', '/usr/bin/firefox']),
    headless: true,
    protocol: 'webDriverBiDi',
    extraPrefsFirefox: FIREFOX_PREFS,
    userDataDir: await trustForFirefox(),
  });
}

export async function closeBrowsers() {
  await Promise.allSettled([chromium, firefox].map(async (browser) => (await browser)?.close()));
}

/** A page in one of the two browsers, with the same verbs for both. */
export class Page {
  static async open(kind, { tcpOnly = false, relay = '', viewport = { width: 1280, height: 800 }, dark = false } = {}) {
    const page = new Page();
    page.kind = kind;
    page.console = [];
    if (kind === 'chromium') {
      const context = await (await chromiumBrowser()).newContext({
        viewport,
        colorScheme: dark ? 'dark' : 'light',
        permissions: ['camera', 'microphone'],
      });
      page.inner = await context.newPage();
      page.close = () => context.close();
      await page.inner.addInitScript(inpage.instrument, { tcpOnly, relay });
    } else {
      const context = await (await firefoxBrowser()).createBrowserContext();
      page.inner = await context.newPage();
      await page.inner.setViewport(viewport);
      page.close = () => context.close();
      await page.inner.evaluateOnNewDocument(inpage.instrument, { tcpOnly, relay });
    }
    page.inner.on('console', (message) => page.console.push(`${message.type()}: ${message.text().slice(0, 2000)}`));
    page.inner.on('pageerror', (error) => page.console.push(`uncaught: ${error.message}`));
    return page;
  }

  evaluate(fn, argument) {
    return this.inner.evaluate(fn, argument);
  }

  async goto(url) {
    await this.inner.goto(url);
  }

  screenshot(path) {
    return this.inner.screenshot({ path });
  }

  click(testid) {
    return this.inner.click(`[data-testid="${testid}"]`);
  }

  /** Text of the element with this test id. */
  text(testid) {
    return this.evaluate((id) => document.querySelector(`[data-testid="${id}"]`)?.textContent ?? '', testid);
  }

  label(testid) {
    return this.evaluate((id) => document.querySelector(`[data-testid="${id}"]`)?.ariaLabel ?? '', testid);
  }

  stats() {
    return this.evaluate(inpage.readStats);
  }

  /** Opens /meet and joins by the address alone; resolves when the room is entered. */
  async join(server, { room, name, query = {} }) {
    this.name = name;
    const search = new URLSearchParams({ room, name, autojoin: '1', ...query });
    await this.goto(`${server.http}/meet/?${search}`);
    await this.joined();
  }

  /** Until the page is in its room. */
  async joined(timeoutMs = 20_000) {
    await until(`${this.name} is in the room`, timeoutMs, async () => {
      const state = await this.evaluate(() => ({
        view: document.body.dataset.view,
        state: window.fanlight.room?.state,
        error: document.querySelector('[data-testid="error"]')?.textContent,
      }));
      check(!state.error, `${this.name} could not join: ${state.error}`);
      return (state.view === 'call' && state.state === 'connected') || new Waiting(JSON.stringify(state));
    });
  }
}

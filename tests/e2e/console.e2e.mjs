// The console shows of TURN what the command line and the API say, to those who may see it.
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { run } from './lib/children.mjs';
import { FANLIGHT } from './lib/paths.mjs';
import { DAYS, recording } from './lib/recording.mjs';
import { freeTcpPorts } from './lib/server.mjs';
import { check, until, Waiting } from './lib/wait.mjs';

const WHOLE_TIME = `from=${DAYS[0]}&to=${DAYS[1]}`;
const PRICES = { gb: 0.08, minute: 0.002 };

/** A server on a record of a fortnight, with a listener for coturn. */
async function imported(t) {
  const file = t.file('recording.txt');
  fs.writeFileSync(file, recording());
  const dataDir = path.join(t.folder, 'data');
  const said = await run(FANLIGHT, ['turn', 'import', file, '--data-dir', dataDir, '--room-separator', '/']);
  check(/sessions with \d+ allocations are on record/.test(said), said);
  const [statsPort] = await freeTcpPorts(1);
  const coturn = { listen: `127.0.0.1:${statsPort}`, room_separator: '/' };
  const server = await t.server(`fanlight: ${JSON.stringify({ coturn })}\n`);
  return { server, statsPort };
}

const turn = (server, ...words) => run(FANLIGHT, ['turn', ...words, '--data-dir', server.dataDir]);
const json = async (server, ...words) => JSON.parse(await turn(server, ...words, '--format', 'json'));

/** As the page and the command line write it. */
function size(bytes) {
  for (const [unit, name] of [[1e9, 'GB'], [1e6, 'MB'], [1e3, 'kB']]) {
    if (bytes < unit) continue;
    const whole = Math.floor(bytes / unit);
    const hundredths = String(Math.floor(((bytes % unit) * 100) / unit)).padStart(2, '0');
    if (whole < 10) return `${whole}.${hundredths} ${name}`;
    return whole < 100 ? `${whole}.${hundredths[0]} ${name}` : `${whole} ${name}`;
  }
  return `${bytes} B`;
}

const minutes = (ms) => (ms / 60_000).toFixed(1);
const shortTime = (iso) => iso.slice(0, 19).replace('T', ' ');

/** Cells of every row with this test id, by the names of their columns. */
function rows(page, testid) {
  return page.evaluate(
    (id) =>
      [...document.querySelectorAll(`[data-testid="${id}"]`)].map((row) =>
        Object.fromEntries([...row.cells].map((cell) => [cell.dataset.label, cell.textContent])),
      ),
    testid,
  );
}

/** Until the rows of the page are these. */
async function shows(page, testid, expected) {
  const wanted = JSON.stringify(expected);
  await until(`the page shows ${expected.length} rows of ${testid} as the command line does`, 10_000, async () => {
    const seen = JSON.stringify((await rows(page, testid)).map((row) => pick(row, Object.keys(expected[0] ?? {}))));
    return seen === wanted || new Waiting(`${seen} instead of ${wanted}`);
  });
}

const pick = (row, names) => Object.fromEntries(names.map((name) => [name, row[name]]));

const usageRow = (line) => ({
  Day: line.key,
  Sessions: String(line.sessions),
  Minutes: minutes(line.held_ms),
  'From peers': size(line.peer_rx_bytes),
  'To peers': size(line.peer_tx_bytes),
  'Client leg': size(line.client_rx_bytes + line.client_tx_bytes),
  Quality: line.quality,
});

const sessionRow = (session) => ({
  Started: shortTime(session.started),
  User: session.user,
  Room: session.room,
  Payload: size(session.peer_rx_bytes + session.peer_tx_bytes),
  Use: session.class,
  Quality: session.quality,
  End: session.end_reason,
});

async function agreesWithTheCommandLine(t) {
  const { server } = await imported(t);
  const page = await t.page('chromium', { viewport: { width: 1280, height: 1000 } });
  page.name = 'console';
  await page.goto(`${server.http}/console/turn?${WHOLE_TIME}&gb=${PRICES.gb}&minute=${PRICES.minute}`);
  const priced = ['--price-per-gb', String(PRICES.gb), '--price-per-minute', String(PRICES.minute)];
  const days = await json(server, 'usage', '--by', 'day', ...priced);
  check(days.length >= 13, `the recording has ${days.length} days`);
  const newest = [...days].reverse();
  await shows(page, 'usage-row', newest.map((line) => ({ ...usageRow(line), Price: line.price.toFixed(2) })));
  const sum = (key) => days.reduce((total, line) => total + line[key], 0);
  const sums = { sessions: String(sum('sessions')), relayed: String(sum('relayed')), minutes: minutes(sum('held_ms')) };
  sums.payload = size(sum('peer_rx_bytes') + sum('peer_tx_bytes'));
  sums.client = size(sum('client_rx_bytes') + sum('client_tx_bytes'));
  sums.price = sum('price').toFixed(2);
  for (const [name, value] of Object.entries(sums)) {
    const seen = await page.text(`sum-${name}`);
    check(seen === value, `${name} is ${seen} on the page and ${value} on the command line`);
  }
  await sessionsAgree(server, page);
  await page.inner.screenshot({ path: t.file('desktop.png'), fullPage: true });
  for (const what of ['sessions', 'usage', 'live']) {
    fs.writeFileSync(t.file(`${what}.txt`), await turn(server, what));
  }
  fs.appendFileSync(t.file('usage.txt'), await turn(server, 'usage', '--by', 'day', ...priced));
}

/** All pages in both orders, the filters, and the file to take away. */
async function sessionsAgree(server, page) {
  const sessions = await json(server, 'sessions');
  const newest = [...sessions].reverse();
  for (let from = 0; from < newest.length; from += 25) {
    await shows(page, 'session-row', newest.slice(from, from + 25).map(sessionRow));
    const last = Math.min(from + 25, newest.length);
    check((await page.text('page')) === `${from + 1}–${last} of ${newest.length}`, await page.text('page'));
    if (last < newest.length) await page.click('later');
  }
  check(await page.evaluate(() => document.querySelector('[data-testid="later"]').disabled), 'there is a page behind the last');
  await page.click('sort-bytes');
  const payload = (session) => session.peer_rx_bytes + session.peer_tx_bytes;
  const largest = [...newest].sort((a, b) => payload(b) - payload(a)).slice(0, 25);
  await shows(page, 'session-row', largest.map(sessionRow));
  await page.click('sort-started');
  await page.inner.fill('[data-testid="user"]', 'alice');
  await page.inner.keyboard.press('Enter');
  const alices = (await json(server, 'sessions', '--user', 'alice')).reverse();
  await shows(page, 'session-row', alices.slice(0, 25).map(sessionRow));
  await shows(page, 'usage-row', (await json(server, 'usage', '--by', 'day', '--user', 'alice')).reverse().map(usageRow));
  await page.inner.fill('[data-testid="user"]', '');
  await page.inner.fill('[data-testid="room"]', 'all hands');
  await page.inner.keyboard.press('Enter');
  await shows(page, 'session-row', (await json(server, 'sessions', '--room', 'all hands')).reverse().slice(0, 25).map(sessionRow));
  const csv = await (await fetch(`${server.http}/api/v1/turn/sessions?order=asc&room=all%20hands&format=csv`)).text();
  check(csv === (await turn(server, 'sessions', '--room', 'all hands', '--format', 'csv')), 'the two CSV files differ');
  await page.inner.fill('[data-testid="room"]', 'nobody was here');
  await page.inner.keyboard.press('Enter');
  await until('the page says that there is nothing', 5000, async () => (await page.text('sessions')).includes('No session'));
  await page.inner.fill('[data-testid="room"]', '');
  await page.inner.keyboard.press('Enter');
  await shows(page, 'session-row', newest.slice(0, 25).map(sessionRow));
}

/** Says to the listener what coturn says. */
class Coturn {
  static async connect(port) {
    const coturn = new Coturn();
    coturn.socket = net.createConnection(port, '127.0.0.1');
    coturn.socket.resume();
    await new Promise((resolve, reject) => coturn.socket.once('connect', resolve).once('error', reject));
    return coturn;
  }

  publish(id, user, what, payload) {
    const channel = `turn/realm/turn.example.org/user/${user}/allocation/${String(id).padStart(18, '0')}/${what}`;
    const words = ['PUBLISH', channel, payload];
    this.socket.write(`*3\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`);
  }

  opens(id, user, transport) {
    const path = `type=${transport}, local=203.0.113.5:3478, remote=198.51.100.7:50${id}, ssl=NONE, cipher=NONE`;
    this.publish(id, user, 'status', `new lifetime=600, ${path}`);
  }
}

async function showsWhatIsOpen(t) {
  const { server, statsPort } = await imported(t);
  const page = await t.page('chromium', { viewport: { width: 390, height: 844 }, dark: true });
  page.name = 'phone';
  await page.goto(`${server.http}/console/turn?${WHOLE_TIME}`);
  await until('nothing is open', 10_000, async () => (await page.text('live')).includes('No allocation is open'));
  const coturn = await Coturn.connect(statsPort);
  t.cleanups.push(() => coturn.socket.destroy());
  coturn.opens(1, '1795231283:standup/ann', 'UDP');
  coturn.opens(2, '1795231283:standup/a rather long name, with <b>markup</b>', 'TLS/TCP');
  coturn.publish(1, '1795231283:standup/ann', 'traffic/peer', 'rcvp=4096, rcvb=3000000, sentp=4096, sentb=1500000');
  await until('both are there with their bytes', 10_000, async () => {
    const live = (await rows(page, 'live-row')).sort((a, b) => a.User.localeCompare(b.User));
    const seen = live.map((row) => [row.User, row.Room, row.Over, row['From peers'], row['To peers']].join(' | '));
    const wanted = ['a rather long name, with <b>markup</b> | standup | TLS/TCP | 0 B | 0 B', 'ann | standup | UDP | 3.00 MB | 1.50 MB'];
    return seen.join() === wanted.join() || new Waiting(JSON.stringify(live));
  });
  const { allocations, health } = await json(server, 'live');
  check(allocations.length === 2 && health.inputs[0].connected, `the command line says ${JSON.stringify(health.inputs)}`);
  await until('the input is connected', 10_000, async () => {
    const said = await page.text('input');
    return (said.includes('connected') && said.includes('3 messages')) || new Waiting(said);
  });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  check(wide <= 0, `the page scrolls sideways by ${wide} px on a phone`);
  await page.inner.screenshot({ path: t.file('phone.png'), fullPage: true });
  await page.inner.screenshot({ path: t.file('phone-top.png') });
  await page.inner.locator('[data-testid="live"]').scrollIntoViewIfNeeded();
  await page.inner.screenshot({ path: t.file('phone-live.png') });
  for (const [id, user] of [[1, '1795231283:standup/ann'], [2, '1795231283:standup/a rather long name, with <b>markup</b>']]) {
    coturn.publish(id, user, 'status', 'deleted');
  }
  await until('nothing is open any more', 10_000, async () => (await page.text('live')).includes('No allocation is open'));
  const anns = await json(server, 'sessions', '--user', 'ann');
  check(anns.length === 1 && anns[0].room === 'standup', `the record says ${JSON.stringify(anns)}`);
}

const token = async (...words) => (await run(FANLIGHT, ['token', 'create', '--identity', 'me', ...words])).trim();

async function asksForAToken(t) {
  const { server } = await imported(t);
  const page = await t.page('chromium');
  page.name = 'token';
  // As through a proxy: whoever is behind it is not this machine.
  await page.inner.setExtraHTTPHeaders({ 'X-Forwarded-For': '198.51.100.9' });
  await page.goto(`${server.http}/console/turn?${WHOLE_TIME}`);
  const asks = () => page.evaluate(() => document.querySelector('[data-testid="token"]').offsetParent !== null);
  await until('the page asks for a token', 10_000, asks);
  await page.inner.screenshot({ path: t.file('token.png') });
  for (const [text, why] of [[await token('--room', 'standup'), 'no roomAdmin'], ['a.b.c', 'invalid authorization token']]) {
    await page.inner.fill('[data-testid="token"]', text);
    await page.click('ask-submit');
    await until('the page says why it does not open', 5000, async () => {
      const said = await page.text('ask-error');
      return said.includes(why) || new Waiting(said);
    });
  }
  await page.inner.fill('[data-testid="token"]', await token('--room-admin', '--room', 'standup'));
  await page.click('ask-submit');
  const own = (await json(server, 'sessions', '--room', 'standup')).reverse().slice(0, 25);
  await shows(page, 'session-row', own.map(sessionRow));
  check((await page.text('scope')).includes('standup'), 'the page does not say which room it shows');
  await page.click('forget');
  await until('the page asks again', 5000, asks);
  await page.inner.fill('[data-testid="token"]', await token('--room-admin'));
  await page.click('ask-submit');
  await shows(page, 'session-row', (await json(server, 'sessions')).reverse().slice(0, 25).map(sessionRow));
  check(!page.console.some((line) => line.startsWith('uncaught')), page.console.join('\n'));
}

export const tests = {
  'the console shows of a fortnight what the command line says': agreesWithTheCommandLine,
  'the console shows open allocations and how the inputs fare, on a phone': showsWhatIsOpen,
  'the console asks for a token and shows what it is for': asksForAToken,
};

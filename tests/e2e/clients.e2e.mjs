// What browsers say of their connections by fanlight-stats.js: it arrives, survives, and stands beside the server's counts.
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { once } from 'node:events';
import { run } from './lib/children.mjs';
import { stopSending } from './lib/inpage.mjs';
import { flows } from './lib/media.mjs';
import { FANLIGHT, ROOT } from './lib/paths.mjs';
import { Postgres } from './lib/postgres.mjs';
import { freeTcpPorts } from './lib/server.mjs';
import { check, pause, until, Waiting, within } from './lib/wait.mjs';

/** Both sides count the same packets. */
const AGREEMENT = 0.01;
/** Long enough that what is on its way at the end is less than the hundredth part. */
export const CALL_MS = 20_000;
export const EVERY_MS = 1_000;
export const KEY = 'a-key-for-pages-0001';
const LIVEKIT = path.join(ROOT, 'web/node_modules/livekit-client/dist/livekit-client.umd.js');

/** A site of its own, on another origin than the server. */
export async function site(t) {
  const scripts = { '/livekit.js': fs.readFileSync(LIVEKIT) };
  const server = http.createServer((request, answer) => {
    const script = scripts[new URL(request.url, 'http://site').pathname];
    answer.setHeader('content-type', script ? 'text/javascript' : 'text/html; charset=utf-8');
    answer.end(script ?? server.html);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.cleanups.push(() => new Promise((resolve) => server.close(resolve)));
  server.origin = `http://127.0.0.1:${server.address().port}`;
  return server;
}

export async function collecting(t, more = {}) {
  const [port] = await freeTcpPorts(1);
  return t.server(`fanlight: ${JSON.stringify({ collector: { port, exporter_port: 0, ...more } })}\n`);
}

export async function api(server, what) {
  const answer = await fetch(`${server.http}/api/v1/clients${what}`);
  const text = await answer.text();
  check(answer.ok, `${what}: ${answer.status} ${text}`);
  return JSON.parse(text);
}

export const clients = async (server, query) => (await api(server, `?${new URLSearchParams(query)}`)).clients;
const all = (counters) => counters.packets + counters.retransmitted + counters.padding;

/** Tracks whose two counts differ by more than they may. */
function apart(participant) {
  return participant.tracks.flatMap((track) => {
    const name = `${participant.identity} ${track.direction} ${track.kind}`;
    if (!track.client) return [`${name}: the client said nothing`];
    const line = `${name}: client ${track.client.packets}, server ${all(track.counters)}`;
    check(track.client.server_packets === all(track.counters), `${name}: ${JSON.stringify(track)}`);
    return within(track.client.packets, all(track.counters), AGREEMENT) ? [] : [line];
  });
}

/** Until the report has everybody's tracks, counted alike on both sides. */
export async function agreed(server, room, people) {
  return until(`${people} participants have the same counts on both sides`, 30_000, async () => {
    const found = (await server.report(room)).rooms.at(-1).participants;
    if (found.length !== people) return new Waiting(`${found.length} participants`);
    const faults = found.flatMap(apart);
    for (const one of faults.length === 0 ? found : []) {
      for (const { direction, kind, client } of one.tracks) {
        console.log(`     ${one.identity} ${direction} ${kind}: client ${client.packets}, server ${client.server_packets}`);
      }
    }
    return faults.length === 0 ? found : new Waiting(faults.join('\n'));
  });
}

async function besideOnMeet(t) {
  await besideEachOther(t, await collecting(t), 'firefox');
}

/** The same with PostgreSQL, which then goes away. */
async function besideFromPostgres(t) {
  const postgres = await Postgres.start();
  t.cleanups.push(() => postgres.stop());
  const server = await collecting(t, { postgres_uri: postgres.uri });
  await besideEachOther(t, server, 'chromium');
  check(!fs.existsSync(path.join(server.dataDir, 'clients.db')), 'nothing is kept in SQLite');
  const [[sources]] = await postgres.sql("SELECT string_agg(DISTINCT source, ',') FROM fanlight_connection");
  check(sources === 'browser', sources);
  await postgres.stop();
  const away = await fetch(`${server.http}/api/v1/clients`);
  const text = await away.text();
  check(away.status === 503 && text.includes('PostgreSQL at 127.0.0.1'), `${away.status} ${text}`);
  check(!/AT CLIENT/.test(await server.reportText('beside')), 'the record is told without the clients');
}

async function besideEachOther(t, server, browserOfBen) {
  const anna = await t.page('chromium');
  const ben = await t.page(browserOfBen);
  const query = { stats: String(EVERY_MS) };
  await anna.join(server, { room: 'beside', name: 'Anna', query });
  await ben.join(server, { room: 'beside', name: 'Ben', query });
  await flows(anna, ben);
  await flows(ben, anna);
  // Firefox does not count what comes while it sets a track up, some 10 packets.
  await pause(browserOfBen === 'firefox' ? 2 * CALL_MS : CALL_MS);
  for (const page of [anna, ben]) await page.evaluate(stopSending);
  const participants = await agreed(server, 'beside', 2);
  check(participants.every((one) => one.tracks.length === 4), 'everybody has two tracks out and two in');
  const text = await server.reportText('beside');
  fs.writeFileSync(t.file('report.txt'), text);
  check(/AT CLIENT +DIFF %/.test(text), text);
  await sidesInTheApi(server, participants);
  // Firefox has no numbers for a connection that is being closed.
  if (browserOfBen === 'firefox') return;
  for (const page of [anna, ben]) await page.click('leave');
  await until('the record says that both have left', 15_000, async () => {
    const left = (await server.report('beside')).rooms[0].participants.filter((one) => one.left_ms);
    return left.length === 2 || new Waiting(String(left.length));
  });
  await agreed(server, 'beside', 2);
}

/** The API tells the same, with every object and what webrtc-internals derives. */
async function sidesInTheApi(server, participants) {
  const reported = await clients(server, { room: 'beside' });
  check(reported.length === 2 && reported.every((one) => one.source === 'browser'), JSON.stringify(reported));
  for (const { number, client_id: identity } of reported) {
    const { client: before, participant, tracks } = await api(server, `/${number}`);
    const recorded = participants.find((one) => one.identity === identity);
    check(participant.sid === recorded.sid, `${participant.sid} is not ${recorded.sid}`);
    check(tracks.length === 4 && tracks.every((track) => track.client.connection === number), JSON.stringify(tracks));
    const { objects } = await api(server, `/${number}/latest`);
    const kinds = new Set(objects.map((entry) => entry.type));
    for (const kind of ['codec', 'outbound-rtp', 'inbound-rtp', 'candidate-pair', 'media-source']) {
      check(kinds.has(kind), `no ${kind} among ${[...kinds]}`);
    }
    const { id } = objects.find((entry) => entry.type === 'inbound-rtp' && entry.object.kind === 'video');
    const { points } = await api(server, `/${number}/series?${new URLSearchParams({ type: 'inbound-rtp', id })}`);
    check(points.length > 10, `${points.length} points`);
    const rates = points[8].rates;
    check(rates['[framesDecoded/s]'] > 1 && rates['[bytesReceived_in_bits/s]'] > 1000, JSON.stringify(rates));
    const { reports } = await api(server, `/${number}/reports`);
    const { client: after } = await api(server, `/${number}`);
    // The page goes on reporting.
    const all = before.reports <= reports.length && reports.length <= after.reports;
    check(all, `${reports.length} reports are told, of ${before.reports} to ${after.reports}`);
    const inOrder = ({ at_ms: at, received_ms: received }, index) => received > at - 5000 && at > (reports[index - 1]?.at_ms ?? 0);
    check(reports.every(inOrder), JSON.stringify(reports));
  }
  const admin = async (room) => {
    const token = (await run(FANLIGHT, ['token', 'create', '--identity', 'me', '--room-admin', '--room', room])).trim();
    return fetch(`${server.http}/api/v1/clients`, { headers: { authorization: `Bearer ${token}` } });
  };
  check((await (await admin('beside')).json()).total === 2, 'an administrator of the room sees its clients');
  check((await (await admin('other')).json()).total === 0, 'an administrator of another room sees none');
  const joins = await server.token('beside', 'eve');
  const eve = await fetch(`${server.http}/api/v1/clients`, { headers: { authorization: `Bearer ${joins}` } });
  check(eve.status === 401, `who may join only gets ${eve.status}`);
}

/** Somebody else's page with LiveKit's own SDK and the snippet. */
const ownPage = (server, token) => `<!doctype html><title>own</title>
<script src="/livekit.js"></script>
<script src="${server.http}/fanlight-stats.js"></script>
<script>
  const token = ${JSON.stringify(token)};
  FanlightStats.start({ token, interval: ${EVERY_MS} });
  const room = new LivekitClient.Room();
  window.ready = room.connect(${JSON.stringify(server.ws)}, token)
    .then(() => Promise.all([room.localParticipant.setCameraEnabled(true), room.localParticipant.setMicrophoneEnabled(true)]));
</script>`;

async function besideOnAnotherSite(t) {
  const server = await collecting(t);
  const own = await site(t);
  own.html = ownPage(server, await server.token('elsewhere', 'carla'));
  const page = await t.page('chromium');
  page.name = 'own';
  await page.goto(own.origin);
  await page.evaluate(() => window.ready);
  await pause(8_000);
  const reloaded = Date.now();
  await page.inner.reload();
  await page.evaluate(() => window.ready);
  await pause(CALL_MS);
  await page.evaluate(stopSending);
  const sessions = await until('both lives of the page are on record', 20_000, async () => {
    const found = (await server.report('elsewhere')).rooms.flatMap((room) => room.participants);
    const told = found.filter((one) => one.tracks.length === 2 && one.tracks.every((track) => track.client));
    return told.length === 2 ? told : new Waiting(JSON.stringify(found).slice(0, 1000));
  });
  const [first, second] = sessions;
  check(first.tracks[0].client.connection !== second.tracks[0].client.connection, 'each life has its own connection');
  for (const track of first.tracks) {
    // A page that is hidden reports once more, so that the last one may be a little younger than the wish to reload.
    const before = reloaded - track.client.at_ms;
    check(Math.abs(before) < 2 * EVERY_MS, `the last report before the reload is ${before} ms old`);
  }
  await until('the page and the server count the same', 20_000, async () => {
    const rooms = (await server.report('elsewhere')).rooms;
    const faults = apart(rooms.flatMap((room) => room.participants).find((one) => one.sid === second.sid));
    return faults.length === 0 || new Waiting(faults.join('\n'));
  });
}

/** A page with two connections to itself and a collector key: there is no room of ours. */
const loopPage = (server, key) => `<!doctype html><title>loop</title>
<canvas width="320" height="180"></canvas>
<script src="${server.http}/fanlight-stats.js" crossorigin></script>
<script type="module">
  const stats = FanlightStats.start({ key: ${JSON.stringify(key)}, room: 'loop', user: 'dora', interval: ${EVERY_MS} });
  window.stats = stats;
  const canvas = document.querySelector('canvas');
  const paint = canvas.getContext('2d');
  setInterval(() => { paint.fillStyle = 'hsl(' + (Date.now() / 10) % 360 + ' 80% 50%)'; paint.fillRect(0, 0, 320, 180); }, 100);
  const [a, b] = [new RTCPeerConnection(), new RTCPeerConnection()];
  a.onicecandidate = (event) => b.addIceCandidate(event.candidate);
  b.onicecandidate = (event) => a.addIceCandidate(event.candidate);
  for (const track of canvas.captureStream(10).getTracks()) a.addTrack(track);
  await a.setLocalDescription();
  await b.setRemoteDescription(a.localDescription);
  await b.setLocalDescription();
  await a.setRemoteDescription(b.localDescription);
  window.connected = true;
</script>`;

/** Times at which the sending connection of a life of the page was told of. */
async function told(server, session) {
  for (const { number, session_id: id } of await clients(server, { room: 'loop' })) {
    if (session && id !== session) continue;
    const { objects } = await api(server, `/${number}/latest`);
    const sent = objects.find((entry) => entry.type === 'outbound-rtp');
    if (!sent) continue;
    const query = new URLSearchParams({ type: 'outbound-rtp', id: sent.id });
    const { points } = await api(server, `/${number}/series?${query}`);
    return { session: id, times: points.map((point) => point.at_ms) };
  }
  return new Waiting('no connection of that life sends');
}

/** The longest time between two reports in a span. */
function longestGap(times, from, to) {
  const inside = [from, ...times.filter((time) => time > from && time < to), to];
  return Math.max(...inside.slice(1).map((time, index) => time - inside[index]));
}

async function survives(t) {
  const own = await site(t);
  const server = await collecting(t, { keys: [{ key: KEY, origins: [own.origin] }] });
  own.html = loopPage(server, KEY);
  const page = await t.page('chromium');
  page.name = 'loop';
  await page.goto(own.origin);
  await until('the first reports are there', 15_000, async () => {
    const found = await told(server);
    return found instanceof Waiting ? found : found.times.length >= 2;
  });
  // An offline minute, compressed.
  const context = page.inner.context();
  const [from, first] = [Date.now(), await told(server)];
  await context.setOffline(true);
  await pause(8 * EVERY_MS);
  const during = await told(server, first.session);
  check(during.times.at(-1) < from + 1.5 * EVERY_MS, 'nothing comes in while the page is offline');
  const to = Date.now();
  await context.setOffline(false);
  await until('what was said offline has arrived', 15_000, async () => {
    const { times } = await told(server, first.session);
    const gap = longestGap(times, from, to);
    return gap < 2.5 * EVERY_MS || new Waiting(`a gap of ${gap} ms`);
  });
  // A reload while the server cannot be reached.
  const blocked = '**/api/v1/client-stats';
  await context.route(blocked, (route) => route.abort());
  const away = Date.now();
  await pause(4 * EVERY_MS);
  const reload = Date.now();
  await page.inner.reload();
  await pause(2 * EVERY_MS);
  await context.unroute(blocked);
  await until('what the page had not been able to say before its reload has arrived', 30_000, async () => {
    const { times } = await told(server, first.session);
    const gap = longestGap(times, away, reload);
    return gap < 2.5 * EVERY_MS || new Waiting(`a gap of ${gap} ms`);
  });
  await until('the page goes on reporting, as another life', 15_000, async () => {
    const lives = new Set((await clients(server, { room: 'loop' })).map((one) => one.session_id));
    return lives.size === 2 || new Waiting(String(lives.size));
  });
  check((await clients(server, { source: 'browser' })).length === 0, 'a key proves nobody');
  await isRefused(t, server);
}

/** The same key on a page of another site, and a wrong key. */
async function isRefused(t, server) {
  const before = (await clients(server, {})).length;
  const other = await site(t);
  other.html = loopPage(server, KEY);
  const page = await t.page('chromium');
  page.name = 'refused';
  await page.goto(other.origin);
  const says = (words) => () => page.console.some((line) => line.includes(words)) || new Waiting(page.console.join('\n'));
  await until('the page hears that the key is not for it', 10_000, says('is not for pages of'));
  other.html = loopPage(server, `${KEY}x`);
  await page.inner.reload();
  await until('the page hears that the key is none', 10_000, says('none of fanlight.collector.keys'));
  check((await clients(server, {})).length === before, 'nothing of it is kept');
}

/** Rows of a table as texts by their columns. */
const rows = (page, testid) =>
  page.evaluate(
    (id) =>
      [...document.querySelectorAll(`[data-testid="${id}"]`)].map((row) =>
        Object.fromEntries([...row.cells].map((cell) => [cell.dataset.label, cell.textContent])),
      ),
    testid,
  );

async function inTheConsole(t) {
  const server = await collecting(t);
  const anna = await t.page('chromium');
  const ben = await t.page('chromium');
  const query = { stats: String(EVERY_MS) };
  await anna.join(server, { room: 'shown', name: 'Anna', query });
  await ben.join(server, { room: 'shown', name: 'Ben', query });
  await flows(anna, ben);
  await flows(ben, anna);
  await pause(12_000);
  const page = await t.page('chromium', { viewport: { width: 1280, height: 1000 } });
  page.name = 'console';
  await page.goto(`${server.http}/console/turn`);
  await page.inner.click('nav a[href="/console/clients"]');
  await until('both are listed', 10_000, async () => (await rows(page, 'client-row')).length === 2);
  await page.inner.screenshot({ path: t.file('list.png'), fullPage: true });
  await page.inner.fill('[data-testid="user"]', (await rows(page, 'client-row')).find((row) => row.User.startsWith('Anna')).User);
  await page.inner.keyboard.press('Enter');
  await until('the search leaves one', 10_000, async () => (await rows(page, 'client-row')).length === 1);
  await page.inner.click('[data-testid="client-row"] a');
  await shown(page);
  await page.inner.screenshot({ path: t.file('desktop.png') });
  await page.inner.screenshot({ path: t.file('desktop-whole.png'), fullPage: true });
  await page.inner.fill('[data-testid="fields"]', '[bytesReceived_in_bits');
  await until('the search leaves one graph', 5000, () =>
    page.evaluate(() => document.querySelectorAll('[data-testid="graph"]').length === 1),
  );
  await page.inner.hover('[data-testid="graph"] .plot');
  const said = await page.evaluate(() => document.querySelector('[data-testid="graph"] output').textContent);
  check(/ at \d\d:\d\d:\d\d$/.test(said), `under the mouse it says ${said}`);
  const phone = await t.page('chromium', { viewport: { width: 390, height: 844 }, dark: true });
  phone.name = 'phone';
  await phone.goto(page.inner.url());
  await shown(phone);
  const wide = await phone.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  check(wide <= 0, `the page scrolls sideways by ${wide} px on a phone`);
  await phone.inner.screenshot({ path: t.file('phone.png'), fullPage: true });
  await phone.inner.screenshot({ path: t.file('phone-top.png') });
  await phone.inner.locator('[data-testid="graphs"]').scrollIntoViewIfNeeded();
  await phone.inner.screenshot({ path: t.file('phone-graphs.png') });
  for (const one of [page, phone]) check(!one.console.some((line) => line.startsWith('uncaught')), one.console.join('\n'));
}

/** Until the page has both sides of four tracks, and graphs that move. */
async function shown(page) {
  await until('four tracks and many graphs are there', 15_000, async () => {
    const tracks = await rows(page, 'track-row');
    const names = await page.evaluate(() => [...document.querySelectorAll('[data-testid="graph"]')].map((one) => one.dataset.name));
    const complete = tracks.length === 4 && tracks.every((row) => row['Client packets'] !== '0' && row['Server packets'] !== '0');
    const drawn = ['[bytesReceived_in_bits/s]', '[framesDecoded/s]', 'packetsReceived'].every((name) => names.includes(name));
    return (complete && drawn) || new Waiting(JSON.stringify({ tracks, names }));
  });
}

export const tests = {
  'what browsers count on /meet stands beside what the server counts': besideOnMeet,
  'what browsers count on /meet is read from PostgreSQL alike': besideFromPostgres,
  "the snippet on another site's page tells of its tracks, before and after a reload": besideOnAnotherSite,
  'what a page says survives an offline time and a reload, and needs a key of its own origin': survives,
  'the console draws what a browser said, beside the server': inTheConsole,
};

// Pages with rtcstats: what they tell over its WebSocket is stored whole, and stands beside the server's counts.
import fs from 'node:fs';
import path from 'node:path';
import { agreed, api, CALL_MS, clients, collecting, EVERY_MS, KEY, site } from './clients.e2e.mjs';
import { stopSending } from './lib/inpage.mjs';
import { HERE } from './lib/paths.mjs';
import { recordRtcStats } from './lib/rtcstats.mjs';
import { check, pause, until, Waiting, within } from './lib/wait.mjs';

/** How long a page is without its socket. */
const BREAK_MS = 3_000;

/** A page with LiveKit's SDK and a recorder that speaks protocol 5. */
function callPage(server, token, session) {
  const url = `${server.ws}/api/v1/rtcstats/call.html?rtcstats-token=${token}&session=${session}`;
  return `<!doctype html><title>${session}</title>
<script>(${recordRtcStats})(${JSON.stringify({ url, interval: EVERY_MS })});</script>
<script src="/livekit.js"></script>
<script>
  const room = new LivekitClient.Room();
  room.on('trackSubscribed', (track) => document.body.append(track.attach()));
  window.ready = room.connect(${JSON.stringify(server.ws)}, ${JSON.stringify(token)})
    .then(() => Promise.all([room.localParticipant.setCameraEnabled(true), room.localParticipant.setMicrophoneEnabled(true)]));
</script><body></body>`;
}

/** The connections of one page that count media, with their objects. */
async function mediaOf(server, session) {
  const own = (await clients(server, { room: 'dump' })).filter((one) => one.session_id === session);
  const all = await Promise.all(own.map(async (one) => ({ ...one, ...(await api(server, `/${one.number}/latest`)) })));
  return all.filter(({ objects }) => objects.some((entry) => /^(in|out)bound-rtp$/.test(entry.type)));
}

async function besideByDump(t) {
  const server = await collecting(t);
  const pages = [];
  for (const name of ['anna', 'ben']) {
    const own = await site(t);
    own.html = callPage(server, await server.token('dump', name), `life-of-${name}`);
    const page = await t.page('chromium');
    page.name = name;
    await page.goto(own.origin);
    await page.evaluate(() => window.ready);
    pages.push(page);
  }
  await pause(CALL_MS / 2);
  const before = await mediaOf(server, 'life-of-anna');
  check(before.length > 0, 'nothing is stored of the first half');
  await pages[0].evaluate(() => window.rtcstats.breakOff());
  await pause(BREAK_MS);
  await pages[0].evaluate(() => window.rtcstats.connect());
  await pause(CALL_MS / 2);
  for (const page of pages) await page.evaluate(stopSending);
  const participants = await agreed(server, 'dump', 2);
  check(participants.every((one) => one.tracks.length === 4), 'everybody has two tracks out and two in');
  await goesOn(server, before);
  await eventsAreTold(t, server);
  for (const page of pages) check(!page.console.some((line) => line.startsWith('uncaught')), page.console.join('\n'));
}

/** After the break the same connections tell of the same objects. */
async function goesOn(server, before) {
  const after = await mediaOf(server, 'life-of-anna');
  check(after.length === before.length, `${before.length} connections became ${after.length}`);
  for (const { number, objects, rejected } of before) {
    const { id } = objects.find((entry) => /^(in|out)bound-rtp$/.test(entry.type) && entry.object.kind === 'video');
    const now = after.find((one) => one.number === number);
    const { type, object, at_ms } = now.objects.find((entry) => entry.id === id && /bound-rtp$/.test(entry.type));
    const { points } = await api(server, `/${number}/series?${new URLSearchParams({ type, id })}`);
    const gaps = points.slice(1).map((point, index) => point.at_ms - points[index].at_ms);
    check(Math.max(...gaps) >= BREAK_MS - EVERY_MS, `the longest gap is ${Math.max(...gaps)} ms`);
    check(points.length > 10 && at_ms > points[0].at_ms + CALL_MS - EVERY_MS, `${points.length} points`);
    check(typeof object.ssrc === 'number' && object.kind === 'video', JSON.stringify(object));
    check(rejected === 0 && now.rejected === 0, `${now.rejected} objects rejected`);
  }
}

/** What is not stats is there too, and the console lists it. */
async function eventsAreTold(t, server) {
  const [one] = await mediaOf(server, 'life-of-ben');
  const events = one.objects.filter((entry) => entry.type === 'rtcstats-event').map((entry) => entry.object);
  const methods = events.map((event) => event.method);
  for (const method of ['create', 'onicecandidate', 'setRemoteDescription', 'onconnectionstatechange']) {
    check(methods.includes(method), `no ${method} among ${methods}`);
  }
  check(events.find((event) => event.method === 'setRemoteDescription').value.sdp.startsWith('v=0'), 'no SDP');
  const page = await t.page('chromium', { viewport: { width: 1280, height: 1000 } });
  page.name = 'console';
  await page.goto(`${server.http}/console/clients/${one.number}`);
  await until('the console lists the events', 15_000, async () => {
    const options = await page.evaluate(() => [...document.querySelectorAll('#object option')].map((option) => option.label));
    return options.some((label) => label.includes('onconnectionstatechange')) || new Waiting(options.join('\n'));
  });
  await page.inner.screenshot({ path: t.file('console.png'), fullPage: true });
}

/** CommonJS in a page. */
const wrapped = (name, file) => {
  const source = fs.readFileSync(path.join(HERE, 'node_modules/rtcstats', file), 'utf8');
  return `const ${name} = (() => { const module = {}; ${source}; return module.exports; })();`;
};

/** Two connections to themselves, told by the package `rtcstats` of npm. */
const packagePage = (server) => `<!doctype html><title>loop</title>
<canvas width="320" height="180"></canvas>
<script>
  // Where this is, the package asks for Chrome's own stats of old, which Chrome has no longer.
  delete Navigator.prototype.webkitGetUserMedia;
  // It loses stats that come before its socket is open, and tells only differences afterwards.
  const Native = window.WebSocket;
  window.WebSocket = class extends Native {
    constructor(...parameters) {
      super(...parameters);
      window.socketIsOpen = new Promise((resolve) => this.addEventListener('open', resolve));
    }
  };
  ${wrapped('webSocketTrace', 'trace-ws.js')}
  ${wrapped('wrap', 'rtcstats.js')}
  wrap(webSocketTrace(${JSON.stringify(`${server.ws}/api/v1/rtcstats?key=${KEY}&room=loop&user=dora&at=`)}), ${EVERY_MS}, ['']);
</script>
<script type="module">
  const canvas = document.querySelector('canvas');
  const paint = canvas.getContext('2d');
  setInterval(() => { paint.fillStyle = 'hsl(' + (Date.now() / 10) % 360 + ' 80% 50%)'; paint.fillRect(0, 0, 320, 180); }, 100);
  await window.socketIsOpen;
  const [a, b] = [new RTCPeerConnection(), new RTCPeerConnection()];
  a.addEventListener('icecandidate', (event) => event.candidate && b.addIceCandidate(event.candidate));
  b.addEventListener('icecandidate', (event) => event.candidate && a.addIceCandidate(event.candidate));
  for (const track of canvas.captureStream(10).getTracks()) a.addTrack(track);
  await a.setLocalDescription(await a.createOffer());
  await b.setRemoteDescription(a.localDescription);
  await b.setLocalDescription(await b.createAnswer());
  await a.setRemoteDescription(b.localDescription);
  window.sends = a;
</script>`;

async function byPackage(t) {
  const own = await site(t);
  const server = await collecting(t, { keys: [{ key: KEY, origins: [own.origin] }] });
  own.html = packagePage(server);
  const page = await t.page('chromium');
  page.name = 'loop';
  await page.goto(own.origin);
  const sent = () =>
    page.evaluate(async () => {
      // Not there before the page's socket is.
      const stats = [...((await window.sends?.getStats())?.values() ?? [])];
      return stats.find((one) => one.type === 'outbound-rtp')?.packetsSent ?? 0;
    });
  await until('packets flow', 15_000, async () => (await sent()) > 50 || new Waiting('none yet'));
  await page.evaluate(() => window.sends.getSenders().forEach((sender) => sender.track.stop()));
  await pause(3 * EVERY_MS);
  const counted = await sent();
  await until('the same is stored', 15_000, async () => {
    for (const one of await clients(server, { room: 'loop', source: 'rtcstats-key' })) {
      const { objects } = await api(server, `/${one.number}/latest`);
      const found = objects.find((entry) => entry.type === 'outbound-rtp');
      if (!found) continue;
      const methods = new Set(objects.map((entry) => entry.object.method));
      check(methods.has('create') && methods.has('setRemoteDescription'), [...methods].join());
      check(one.client_id === 'dora' && one.version === '2.0', JSON.stringify(one));
      return within(found.object.packetsSent, counted, 0.01) || new Waiting(`${found.object.packetsSent} of ${counted}`);
    }
    return new Waiting('nothing that sends');
  });
}

export const tests = {
  'an rtcstats dump stands beside what the server counts, and goes on after its socket broke off': besideByDump,
  "the npm package rtcstats tells of a page's connections": byPackage,
};

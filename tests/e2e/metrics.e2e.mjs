// What LiveKit's clients measure comes over their data channels, and stands beside what the server knows of the call.
import { DataPacket, MetricLabel } from '@livekit/protocol';
import { api, clients } from './clients.e2e.mjs';
import { collectData, readData, sendPackets } from './lib/inpage.mjs';
import { flows } from './lib/media.mjs';
import { freeTcpPorts } from './lib/server.mjs';
import { check, until, Waiting } from './lib/wait.mjs';

/** Batches of one participant in ten seconds, of `sfu/src/limits.rs`. */
const BATCHES_MAX = 100;
const FREEZES = MetricLabel.CLIENT_VIDEO_SUBSCRIBER_FREEZE_COUNT;
/** From here on an index is of the batch's own texts. */
const OWN = MetricLabel.METRIC_LABEL_PREDEFINED_MAX_VALUE;

/** A packet with a batch, by a clock that began with the page, as SDKs write it. */
function packet({ texts, series, events = [] }) {
  const sentMs = 60_000;
  const value = {
    timestampMs: BigInt(sentMs),
    strData: texts,
    timeSeries: series.map(({ samples, ...names }) => ({
      ...names,
      samples: samples.map(([agoMs, number]) => ({ timestampMs: BigInt(sentMs - agoMs), value: number })),
    })),
    events: events.map(({ agoMs, ...event }) => ({ ...event, startTimestampMs: BigInt(sentMs - agoMs) })),
  };
  return [...new DataPacket({ value: { case: 'metrics', value } }).toBinary()];
}

async function prometheus(server, port, name) {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const lines = text.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

async function measured(t) {
  const [collector, metrics] = await freeTcpPorts(2);
  const server = await t.server(`prometheus_port: ${metrics}\nfanlight: {collector: {port: ${collector}, exporter_port: 0}}\n`);
  const anna = await t.page('chromium');
  const ben = await t.page('chromium');
  const query = { stats: '0' };
  await anna.join(server, { room: 'measured', name: 'Anna', query });
  await ben.join(server, { room: 'measured', name: 'Ben', query });
  await flows(anna, ben);
  await anna.evaluate(collectData);
  const people = async () => (await server.report('measured')).rooms[0].participants;
  const named = async (name) => (await people()).find((one) => one.identity.startsWith(name));
  const camera = (await named('Ben')).tracks.find((track) => track.direction === 'subscribe' && track.kind === 'video');
  const { identity } = await named('Anna');
  const batch = (values, agoMs) => ({
    texts: [identity, camera.sid, 'speech_probability', 'turn'],
    series: [
      { label: FREEZES, participantIdentity: OWN, trackSid: OWN + 1, samples: values.map((value, place) => [1000 * (values.length - place), value]) },
      { label: OWN + 2, samples: [[0, 0.25]] },
    ],
    events: [{ label: OWN + 3, agoMs, metadata: '{"of":"ben"}' }],
  });
  await ben.evaluate(sendPackets, { bytes: packet(batch([1, 1, 2], 700)), times: 1 });
  await ben.evaluate(sendPackets, { bytes: packet(batch([2, 5], 300)), times: 1 });
  const row = await until('both batches are stored', 15_000, async () => {
    const [found, ...more] = await clients(server, { source: 'livekit' });
    check(more.length === 0, JSON.stringify(more));
    return found?.reports === 2 ? found : new Waiting(JSON.stringify(found));
  });
  const { sid } = await named('Ben');
  check(row.participant_sid === sid && row.connection_id === sid && row.label === 'livekit-js', JSON.stringify(row));
  await isTold(server, row.number, camera.sid, identity);
  const told = (await named('Ben')).metrics.map((metric) => [metric.label, metric.participant, metric.track, metric.value]);
  const wanted = ['CLIENT_VIDEO_SUBSCRIBER_FREEZE_COUNT', identity, camera.sid, 5];
  check(told.length === 3 && told.some((one) => JSON.stringify(one) === JSON.stringify(wanted)), JSON.stringify(told));
  const text = await server.reportText('measured');
  check(/ITS CLIENT MEASURED/.test(text) && /speech_probability +0\.25/.test(text), text);
  await isShown(t, server, row.number);
  await floods(server, metrics, ben, batch([1], 0));
  check((await anna.evaluate(readData)).length === 0, 'metrics are for nobody in the room');
}

/** The API has each sample at its own time, of the participant and the track that it is of. */
async function isTold(server, number, track, identity) {
  const { participant, tracks } = await api(server, `/${number}`);
  check(participant.identity.startsWith('Ben') && tracks.length === 1 && tracks[0].sid === track, JSON.stringify(tracks));
  const { objects } = await api(server, `/${number}/latest`);
  const of = (type) => objects.filter((entry) => entry.type === type);
  check(of('livekit-metric').length === 2 && of('livekit-event').length === 1, JSON.stringify(objects));
  const { id } = objects.find((entry) => entry.object.trackSid === track);
  check(id === `CLIENT_VIDEO_SUBSCRIBER_FREEZE_COUNT/${track}//${identity}`, id);
  const { points } = await api(server, `/${number}/series?${new URLSearchParams({ type: 'livekit-metric', id })}`);
  const samples = points.flatMap((point) => point.object.samples);
  check(samples.map(([, value]) => value).join() === '1,1,2,2,5', JSON.stringify(points));
  const apart = samples[1][0] - samples[0][0];
  check(Math.abs(apart - 1000) < 1 && Math.abs(Date.now() - samples[4][0]) < 30_000, JSON.stringify(samples));
  const events = of('livekit-event')[0].object.events;
  check(events.length === 1 && events[0].metadata === '{"of":"ben"}', JSON.stringify(events));
}

/** The console draws it. */
async function isShown(t, server, number) {
  const page = await t.page('chromium', { viewport: { width: 1280, height: 900 } });
  page.name = 'console';
  await page.goto(`${server.http}/console/clients/${number}`);
  await until('the objects are listed', 10_000, () => page.evaluate(() => document.querySelectorAll('#object option').length === 3));
  const freezes = await page.evaluate(() => [...document.querySelectorAll('#object option')].map((one) => one.value).find((one) => one.includes('FREEZE')));
  await page.inner.selectOption('#object', freezes);
  await until('the values are drawn', 10_000, () => page.evaluate(() => document.querySelector('[data-testid="graph"]')?.dataset.name === 'value'));
  await page.inner.screenshot({ path: t.file('console.png'), fullPage: true });
  check(!page.console.some((line) => line.startsWith('uncaught')), page.console.join('\n'));
}

/** What is too much is refused, and the call goes on. */
async function floods(server, port, page, batch) {
  await page.evaluate(sendPackets, { bytes: packet(batch), times: BATCHES_MAX + 50 });
  await until('the flood is over', 15_000, async () => {
    const stored = await prometheus(server, port, 'fanlight_client_metrics_batches_total');
    const refused = await prometheus(server, port, 'fanlight_shard_metrics_refused_total');
    return (stored + refused === BATCHES_MAX + 52 && refused > 0) || new Waiting(`${stored} stored, ${refused} refused`);
  });
  check((await prometheus(server, port, 'fanlight_client_metrics_dropped_total')) === 0, 'none is dropped');
  const still = (await server.report('measured')).rooms[0].participants.filter((one) => one.left_ms === null);
  check(still.length === 2, 'both are still there');
}

export const tests = {
  'what a LiveKit client measures is kept, told and drawn, and a flood of it ends nothing': measured,
};

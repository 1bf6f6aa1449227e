import { until, Waiting, check } from './wait.mjs';

/** Time for encoders to climb from their first guess of the bandwidth to their full size. */
const FULL_SIZE_MS = 40_000;
const FLOW_MS = 25_000;

/** Until each of the two pages sees moving pictures and hears sound of the other, over `protocol`. */
export async function meetEachOther(a, b, { protocol }) {
  await flows(b, a);
  await flows(a, b);
  for (const page of [a, b]) {
    const pairs = (await page.stats()).pairs.filter((pair) => pair.selected);
    check(pairs.length > 0, `${page.name}: no candidate pair is in use`);
    check(
      pairs.every((pair) => pair.protocol === protocol),
      `${page.name}: media goes over ${JSON.stringify(pairs)}, not ${protocol}`,
    );
  }
}

/** Until pictures and sound of `sender` keep arriving at `receiver`. */
export async function flows(sender, receiver) {
  const first = await until(`${receiver.name} receives sound and pictures of ${sender.name}`, FLOW_MS, async () => {
    const now = received(await receiver.stats());
    return now.frames > 0 && now.audioPackets > 0 ? now : new Waiting(JSON.stringify(now));
  });
  await until(`${receiver.name}: frames and audio energy of ${sender.name} keep growing`, FLOW_MS, async () => {
    const now = received(await receiver.stats());
    const grows = now.frames >= first.frames + 20 && now.energy > first.energy;
    return grows || new Waiting(`${JSON.stringify(first)} → ${JSON.stringify(now)}`);
  });
}

/** Until the picture that arrives is as large as the largest one that is sent, and at least `width` wide. */
export async function arrivesAsSent(sender, receiver, { width, codec }) {
  return until(`${receiver.name} sees ${sender.name} as large as sent (≥ ${width})`, FULL_SIZE_MS, async () => {
    const sent = (await sender.stats()).outbound.filter((entry) => entry.kind === 'video' && entry.frames > 0);
    const got = (await receiver.stats()).inbound.filter((entry) => entry.kind === 'video' && entry.frames > 0);
    const largest = sent.reduce((best, entry) => (entry.width > best.width ? entry : best), { width: 0, height: 0 });
    const fits = got.some(
      (entry) =>
        entry.width === largest.width &&
        entry.height === largest.height &&
        entry.width >= width &&
        (!codec || entry.codec.toLowerCase() === `video/${codec}`),
    );
    const brief = (entry) => `${entry.rid ?? ''} ${entry.codec} ${entry.width}x${entry.height} ${entry.scalability ?? ''}`;
    return fits ? largest : new Waiting(`sent ${sent.map(brief)}; received ${got.map(brief)}`);
  });
}

function received(stats) {
  const sum = (kind, key) =>
    stats.inbound.filter((entry) => entry.kind === kind).reduce((total, entry) => total + entry[key], 0);
  return { frames: sum('video', 'frames'), audioPackets: sum('audio', 'packets'), energy: sum('audio', 'energy') };
}

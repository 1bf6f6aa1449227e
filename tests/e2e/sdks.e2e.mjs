// LiveKit's Python and Node SDKs and a browser in one room: each publishes a tone and a colour, each checks the others'.
import { collectData, publishPattern, readData, readPattern, sendData } from './lib/inpage.mjs';
import { until, Waiting } from './lib/wait.mjs';

const VOICES = {
  browser: { toneHz: 1320, colour: [30, 180, 60] },
  python: { toneHz: 660, colour: [210, 40, 40] },
  node: { toneHz: 880, colour: [40, 60, 210] },
};
/** Browsers and SDKs turn YUV into RGB by different matrices; tones pass through Opus and FFT bins of 2.9 Hz. */
const COLOUR_TOLERANCE = 45;
const TONE_TOLERANCE_HZ = 8;

function differs(heard, voice) {
  if (!heard) return 'nothing';
  const faults = [];
  if (Math.abs(heard.toneHz - voice.toneHz) > TONE_TOLERANCE_HZ) faults.push(`tone ${heard.toneHz?.toFixed?.(0)} Hz`);
  const far = heard.colour?.some((value, index) => Math.abs(value - voice.colour[index]) > COLOUR_TOLERANCE);
  if (!heard.colour || far) faults.push(`colour ${JSON.stringify(heard.colour)}`);
  return faults.join(', ');
}

/** The participants behind one set of verbs. */
async function gather(t, v0) {
  const server = await t.server();
  const page = await t.page('chromium');
  page.name = 'browser';
  await page.goto(`${server.http}/meet/?room=sdks&name=browser&adaptive=0${v0 ? '&v0=1' : ''}`);
  await page.click('lobby-mic');
  await page.click('lobby-camera');
  await page.click('join');
  await page.joined();
  await page.evaluate(collectData);
  await page.evaluate(publishPattern, { ...VOICES.browser, width: 640, height: 360 });
  const peers = {};
  for (const language of ['python', 'node']) {
    const token = await server.token('sdks', language);
    peers[language] = await t.sdk(language, { url: server.ws, token, identity: language, v0, ...VOICES[language] });
  }
  const browserIdentity = await page.evaluate(() => window.fanlight.room.localParticipant.identity);
  return {
    identity: { browser: browserIdentity, python: 'python', node: 'node' },
    heard: async (who) => (who === 'browser' ? page.evaluate(readPattern) : peers[who].heard),
    data: async (who) => (who === 'browser' ? page.evaluate(readData) : peers[who].data),
    send: async (who, packet) =>
      who === 'browser' ? page.evaluate(sendData, packet) : peers[who].send({ do: 'data', ...packet }),
    screenshot: () => page.screenshot(t.file('browser.png')),
  };
}

const others = (who) => Object.keys(VOICES).filter((name) => name !== who);

async function everyoneIsHeard(room) {
  await until('every tone and every colour arrives at both others', 45_000, async () => {
    const faults = [];
    for (const who of Object.keys(VOICES)) {
      const heard = await room.heard(who);
      for (const from of others(who)) {
        const fault = differs(heard[room.identity[from]], VOICES[from]);
        if (fault) faults.push(`${who} gets of ${from}: ${fault}`);
      }
    }
    return faults.length === 0 || new Waiting(faults.join('; '));
  });
}

async function dataArrives(room) {
  for (const who of Object.keys(VOICES)) {
    // Once more every second: a lossy packet may go astray while channels open.
    for (const reliable of [true, false]) {
      const text = `${who} ${reliable ? 'reliable' : 'lossy'}`;
      let rounds = 0;
      await until(`"${text}" arrives at both others`, 15_000, async () => {
        if (rounds++ % 4 === 0 && (rounds === 1 || !reliable)) await room.send(who, { text, reliable, topic: 'test' });
        const missing = [];
        for (const other of others(who)) {
          const packets = await room.data(other);
          const same = (packet) =>
            packet.text === text && packet.topic === 'test' && packet.reliable === reliable && packet.from === room.identity[who];
          if (!packets.some(same)) missing.push(`${other} has ${JSON.stringify(packets.slice(-3))}`);
        }
        return missing.length === 0 || new Waiting(missing.join('; '));
      });
    }
  }
}

/** A packet for one participant reaches that one and no other. */
async function dataIsAddressed(room) {
  for (const [who, to, not] of [['browser', 'python', 'node'], ['python', 'node', 'browser'], ['node', 'browser', 'python']]) {
    const secret = `from ${who} for ${to} alone`;
    await room.send(who, { text: secret, reliable: true, topic: 'test', to: [room.identity[to]] });
    // What is sent to all afterwards, on the same ordered channel, shows that the first has passed.
    await room.send(who, { text: `${secret}, passed`, reliable: true, topic: 'test' });
    await until(`"${secret}" arrives at ${to} and not at ${not}`, 10_000, async () => {
      const texts = async (name) => (await room.data(name)).map((packet) => packet.text);
      const [there, elsewhere] = [await texts(to), await texts(not)];
      if (elsewhere.includes(secret)) throw new Error(`${not} got "${secret}"`);
      return (there.includes(secret) && elsewhere.includes(`${secret}, passed`)) || new Waiting(there.slice(-3).join('; '));
    });
  }
}

function meeting(v0) {
  return async (t) => {
    const room = await gather(t, v0);
    await everyoneIsHeard(room);
    await room.screenshot();
    await dataArrives(room);
    await dataIsAddressed(room);
  };
}

export const tests = {
  'the Python SDK, the Node SDK and a browser exchange tones, colours and data on v1': meeting(false),
  'the Python SDK, the Node SDK and a browser exchange tones, colours and data on v0': meeting(true),
};

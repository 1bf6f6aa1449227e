// Two people in /meet: every pair of browsers, on both signalling versions, over UDP and over TCP.
import { arrivesAsSent, meetEachOther } from './lib/media.mjs';

const PAIRS = [
  ['chromium', 'chromium'],
  ['chromium', 'firefox'],
];

function call(first, second, version, protocol) {
  return async (t) => {
    const server = await t.server();
    const query = { adaptive: '0', ...(version === 'v0' && { v0: '1' }) };
    const options = { tcpOnly: protocol === 'tcp' };
    const anna = await t.page(first, options);
    const ben = await t.page(second, options);
    await anna.join(server, { room: 'two', name: 'Anna', query });
    await ben.join(server, { room: 'two', name: 'Ben', query });
    await meetEachOther(anna, ben, { protocol });
    await arrivesAsSent(anna, ben, { width: 1280, codec: 'vp8' });
    await arrivesAsSent(ben, anna, { width: second === 'firefox' ? 640 : 1280, codec: 'vp8' });
    await anna.screenshot(t.file('anna.png'));
    await ben.screenshot(t.file('ben.png'));
  };
}

export const tests = {};
for (const [first, second] of PAIRS) {
  for (const version of ['v1', 'v0']) {
    for (const protocol of ['udp', 'tcp']) {
      const name = `${first} and ${second} see and hear each other on ${version} over ${protocol.toUpperCase()}`;
      tests[name] = call(first, second, version, protocol);
    }
  }
}

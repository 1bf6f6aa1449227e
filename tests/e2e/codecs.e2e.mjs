// Each video codec from one browser to another.
import { arrivesAsSent, flows } from './lib/media.mjs';

function codec(name, receiver, width) {
  return async (t) => {
    const server = await t.server();
    const anna = await t.page('chromium');
    const ben = await t.page(receiver);
    await anna.join(server, { room: 'codec', name: 'Anna', query: { codec: name, adaptive: '0' } });
    await ben.join(server, { room: 'codec', name: 'Ben', query: { adaptive: '0' } });
    await flows(anna, ben);
    await arrivesAsSent(anna, ben, { width, codec: name });
  };
}

export const tests = {
  'VP9 of chromium plays in chromium': codec('vp9', 'chromium', 1280),
  'AV1 of chromium plays in chromium': codec('av1', 'chromium', 640),
  'H264 of chromium plays in chromium': codec('h264', 'chromium', 640),
  'VP9 of chromium plays in firefox': codec('vp9', 'firefox', 640),
  'AV1 of chromium plays in firefox': codec('av1', 'firefox', 640),
};

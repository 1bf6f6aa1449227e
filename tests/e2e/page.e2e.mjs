// The page itself: by keyboard, on a phone, with its controls, and without tokens from the server.
import { flows } from './lib/media.mjs';
import { check, until, Waiting } from './lib/wait.mjs';

/** Presses Tab until the element with this test id has the focus, and that can be seen. */
async function tabTo(page, testid) {
  for (let presses = 0; presses < 25; presses += 1) {
    const focus = await page.evaluate(() => {
      const element = document.activeElement;
      return { id: element?.dataset?.testid ?? '', outline: element ? getComputedStyle(element).outlineStyle : 'none' };
    });
    if (focus.id === testid) {
      check(focus.outline !== 'none', `${testid} has the focus, but nothing shows it`);
      return;
    }
    await page.inner.keyboard.press('Tab');
  }
  throw new Error(`the Tab key does not reach ${testid}`);
}

async function joinByKeyboard(t) {
  const server = await t.server();
  const ben = await t.page('chromium');
  await ben.join(server, { room: 'keys', name: 'Ben' });
  const anna = await t.page('chromium');
  anna.name = 'Anna';
  await anna.goto(`${server.http}/meet`);
  await anna.inner.keyboard.type('Anna');
  await tabTo(anna, 'room');
  await anna.inner.keyboard.type('keys');
  await until('the preview shows the camera', 10_000, () =>
    anna.evaluate(() => document.querySelector('#preview-video').videoWidth > 0),
  );
  await anna.screenshot(t.file('lobby.png'));
  await tabTo(anna, 'join');
  await anna.inner.keyboard.press('Enter');
  await anna.joined();
  await flows(ben, anna);
  await flows(anna, ben);
  await until('Ben is told that Anna joined', 5000, async () => (await ben.text('announcer')).includes('Anna joined.'));
  await tabTo(anna, 'mic');
  await anna.inner.keyboard.press('Space');
  const tileOfAnna = () =>
    ben.evaluate(() => document.querySelector('[data-testid="tile"][aria-label^="Anna"]')?.ariaLabel ?? '');
  await until('Ben sees that Anna is muted', 5000, async () => (await tileOfAnna()).includes('microphone off'));
  check((await anna.label('mic')) === 'Unmute microphone', 'the button offers to unmute');
  await tabTo(anna, 'camera');
  await anna.inner.keyboard.press('Enter');
  await until('Ben sees that the camera is off', 5000, async () => (await tileOfAnna()).includes('camera off'));
  await anna.screenshot(t.file('call.png'));
  await anna.inner.keyboard.press('Enter');
  await until('Ben sees the camera again', 10_000, async () => {
    const label = await tileOfAnna();
    return !label.includes('camera off') || new Waiting(label);
  });
  await tabTo(anna, 'leave');
  await anna.inner.keyboard.press('Enter');
  await until('Anna is back in the lobby', 5000, () => anna.evaluate(() => document.body.dataset.view === 'lobby'));
  check((await anna.text('error')).includes('You left the call'), 'the lobby says why');
  await until('Ben is told that Anna left', 5000, async () => (await ben.text('announcer')).includes('Anna left.'));
}

async function fitsAPhone(t) {
  const server = await t.server();
  const viewport = { width: 360, height: 740 };
  const anna = await t.page('chromium', { viewport, dark: true });
  anna.name = 'Anna';
  await anna.goto(`${server.http}/meet?room=phone`);
  await until('the preview shows the camera', 10_000, () =>
    anna.evaluate(() => document.querySelector('#preview-video').videoWidth > 0),
  );
  await fits(anna);
  await anna.screenshot(t.file('lobby.png'));
  await anna.inner.fill('[data-testid="name"]', 'Anna');
  await anna.click('join');
  await anna.joined();
  const ben = await t.page('chromium');
  await ben.join(server, { room: 'phone', name: 'Benedikt with a rather long name, Esq.' });
  await flows(ben, anna);
  await fits(anna);
  await anna.screenshot(t.file('call.png'));
}

/** Nothing is cut off sideways, and every control is large enough for a finger. */
async function fits(page) {
  const seen = await page.evaluate(() => {
    const visible = [...document.querySelectorAll('button, input, select')].filter((e) => e.offsetParent !== null);
    const small = visible.filter((e) => e.getBoundingClientRect().height < 40);
    const outside = visible.filter((e) => e.getBoundingClientRect().right > innerWidth);
    return {
      scroll: document.documentElement.scrollWidth - innerWidth,
      bad: [...small, ...outside].map((e) => e.id),
    };
  });
  check(seen.scroll <= 0, `the page scrolls sideways by ${seen.scroll} px`);
  check(seen.bad.length === 0, `too small or cut off: ${seen.bad}`);
}

async function sharesTheScreen(t) {
  const server = await t.server();
  const anna = await t.page('chromium');
  const ben = await t.page('chromium');
  await anna.join(server, { room: 'screen', name: 'Anna' });
  await ben.join(server, { room: 'screen', name: 'Ben' });
  await anna.click('screen');
  const shown = () =>
    ben.evaluate(() => document.querySelector('[data-testid="tile"][data-source="screen_share"] video')?.videoWidth ?? 0);
  await until('Ben sees the screen of Anna', 20_000, shown);
  await ben.screenshot(t.file('ben.png'));
  await anna.click('screen');
  await until('the screen is gone', 10_000, () =>
    ben.evaluate(() => !document.querySelector('[data-testid="tile"][data-source="screen_share"]')),
  );
}

async function asksForAToken(t) {
  const server = await t.server();
  const anna = await t.page('chromium');
  anna.name = 'Anna';
  await anna.inner.route('**/meet/token', (route) => route.fulfill({ status: 404 }));
  await anna.goto(`${server.http}/meet/?room=token&name=Anna`);
  await anna.click('join');
  await until('the page asks for a token', 5000, () =>
    anna.evaluate(() => document.querySelector('[data-testid="token"]').offsetParent !== null),
  );
  await anna.inner.fill('[data-testid="token"]', await server.token('token', 'Anna'));
  await anna.click('join');
  await anna.joined();
  check((await anna.text('room-name')) === 'token', 'the room is the one of the token');
  check(!(await anna.evaluate(() => location.search)).includes('ey'), 'no token stays in the address');
}

async function refusesABadToken(t) {
  const server = await t.server();
  const anna = await t.page('chromium');
  await anna.goto(`${server.http}/meet/?room=bad&name=Anna&token=a.b.c&autojoin=1`);
  await until('the page says that it cannot join', 15_000, async () => (await anna.text('error')).includes('Could not join'));
  check(await anna.evaluate(() => document.body.dataset.view === 'lobby'), 'the lobby stays');
}

/** Devices of one kind that open only when the test says so, and every track that was given. */
function holdDevices(held) {
  const { mediaDevices } = navigator;
  const open = mediaDevices.getUserMedia.bind(mediaDevices);
  let release;
  const released = new Promise((resolve) => (release = resolve));
  window.e2eDevices = { asked: [], given: [], release };
  mediaDevices.getUserMedia = async (constraints) => {
    window.e2eDevices.asked.push(...Object.keys(constraints).filter((kind) => constraints[kind]));
    if (constraints[held]) await released;
    const stream = await open(constraints);
    window.e2eDevices.given.push(...stream.getTracks());
    return stream;
  };
}

/** In the lobby, with a device asked for and not there yet. */
async function whileOneOpens(t, held) {
  const server = await t.server();
  const anna = await t.page('chromium');
  anna.name = 'Anna';
  await anna.inner.addInitScript(holdDevices, held);
  await anna.goto(`${server.http}/meet/?room=late&name=Anna`);
  await until(`the page asks for ${held}`, 10_000, () =>
    anna.evaluate((kind) => window.e2eDevices.asked.includes(kind), held),
  );
  return { server, anna };
}

const liveVideo = (page) =>
  page.evaluate(() => window.e2eDevices.given.filter((track) => track.kind === 'video').map((track) => track.readyState));
const cameraPublished = (page) =>
  page.evaluate(() => Boolean(window.fanlight.room?.localParticipant.getTrackPublication('camera')));

async function turnsOffACameraThatOpens(t) {
  const { anna } = await whileOneOpens(t, 'video');
  await anna.screenshot(t.file('opening.png'));
  await anna.click('lobby-camera');
  await anna.evaluate(() => window.e2eDevices.release());
  await until('the camera that came too late is stopped', 10_000, async () => {
    const states = await liveVideo(anna);
    return (states.length === 1 && states[0] === 'ended') || new Waiting(JSON.stringify(states));
  });
  await anna.click('join');
  await anna.joined();
  await until('the microphone is published', 10_000, () =>
    anna.evaluate(() => Boolean(window.fanlight.room.localParticipant.getTrackPublication('microphone'))),
  );
  check(!(await cameraPublished(anna)), 'the camera that was turned off is published');
  check((await anna.label('camera')) === 'Turn on camera', 'the button offers to turn the camera on');
}

function joinsWhileOneOpens(held) {
  return async (t) => {
    const { server, anna } = await whileOneOpens(t, held);
    const ben = await t.page('chromium');
    await ben.join(server, { room: 'late', name: 'Ben' });
    await anna.click('join');
    await anna.joined();
    check(!(await cameraPublished(anna)), 'no camera is published before it is open');
    // It is on its way: to press the button now must not open it a second time.
    await anna.evaluate(() => document.getElementById('camera').click());
    await anna.evaluate(() => window.e2eDevices.release());
    await flows(anna, ben);
    const before = await liveVideo(anna);
    check(before.length === 1, `one camera is open, not ${before.length}`);
    await anna.evaluate(() => window.fanlight.room.disconnect());
    await until('the camera ends with the call', 10_000, async () => (await liveVideo(anna))[0] === 'ended');
  };
}

/** Devices of which the browser allows only the kinds that the test says. */
function forbidDevices() {
  const { mediaDevices } = navigator;
  const open = mediaDevices.getUserMedia.bind(mediaDevices);
  window.e2eAllowed = [];
  mediaDevices.getUserMedia = async (constraints) => {
    const forbidden = ['audio', 'video'].some((kind) => constraints[kind] && !window.e2eAllowed.includes(kind));
    if (forbidden) throw new DOMException('Permission denied', 'NotAllowedError');
    return open(constraints);
  };
}

async function saysThatACameraIsForbidden(t) {
  const server = await t.server();
  const anna = await t.page('chromium');
  anna.name = 'Anna';
  await anna.inner.addInitScript(forbidDevices);
  await anna.goto(`${server.http}/meet/?room=forbidden&name=Anna`);
  await anna.click('join');
  await anna.joined();
  const says = (what, wanted) =>
    until(what, 5000, async () => {
      const text = await anna.text('banner');
      return text === wanted || new Waiting(text);
    });
  await anna.click('camera');
  await says('the page says why there is no camera', 'The browser does not allow the camera.');
  await anna.screenshot(t.file('forbidden.png'));
  await anna.evaluate(() => (window.e2eAllowed = ['audio']));
  await anna.click('mic');
  await until('the microphone is published', 10_000, async () => (await anna.label('mic')) === 'Mute microphone');
  await says('the camera is still missing', 'The browser does not allow the camera.');
  await anna.evaluate(() => (window.e2eAllowed = ['audio', 'video']));
  await anna.click('camera');
  await until('the camera is published', 10_000, () => cameraPublished(anna));
  await says('nothing is said any more', '');
}

export const tests = {
  'one joins, mutes and leaves by keyboard alone, and others are told': joinByKeyboard,
  'a camera that is turned off while it opens stays off': turnsOffACameraThatOpens,
  'a camera that opens after its owner joined is published then': joinsWhileOneOpens('video'),
  'a camera is asked for once when its owner joined before the microphone was open': joinsWhileOneOpens('audio'),
  'a camera that the browser does not allow is named, and comes when it is allowed': saysThatACameraIsForbidden,
  'the page fits a phone': fitsAPhone,
  'a shared screen arrives and goes': sharesTheScreen,
  'without tokens from the server the page asks for one': asksForAToken,
  'a bad token is refused in words': refusesABadToken,
};

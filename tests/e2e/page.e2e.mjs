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

export const tests = {
  'one joins, mutes and leaves by keyboard alone, and others are told': joinByKeyboard,
  'the page fits a phone': fitsAPhone,
  'a shared screen arrives and goes': sharesTheScreen,
  'without tokens from the server the page asks for one': asksForAToken,
  'a bad token is refused in words': refusesABadToken,
};

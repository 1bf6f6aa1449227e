// What the record says of a call: against the clients' own counters, and after the server was killed in the middle.
import { stopSending } from './lib/inpage.mjs';
import { flows } from './lib/media.mjs';
import { check, pause, until, Waiting, within } from './lib/wait.mjs';

/** The record and a client count the same packets. */
const AGREEMENT = 0.01;
/** A heartbeat each second tells when the server was last seen; facts are written within 200 ms. */
const LAST_SEEN_MS = 1500;
const FACT_DELAY_MS = 400;
/** Long enough that the packets on their way while a browser takes an answer over are less than the hundredth part. */
const CALL_MS = 20_000;
/** Samples are five seconds apart. */
const SAMPLE_AGE_MS = 6000;

async function pair(t, query) {
  const server = await t.server();
  const anna = await t.page('chromium');
  const ben = await t.page('chromium');
  await anna.join(server, { room: 'record', name: 'Anna', query });
  await ben.join(server, { room: 'record', name: 'Ben', query });
  await flows(anna, ben);
  await flows(ben, anna);
  return { server, anna, ben };
}

const sum = (entries, key) => entries.reduce((total, entry) => total + entry[key], 0);

/** Packets of one direction and kind as the page counts them: media, retransmissions and padding of all layers. */
const counted = (stats, direction, kind) =>
  sum(stats[direction === 'publish' ? 'outbound' : 'inbound'].filter((entry) => entry.kind === kind), 'packets');

/** Leaves, and says what was counted until then: a sender at rest still probes the path now and then. */
async function leave(page) {
  const stats = await page.stats();
  await page.click('leave');
  return stats;
}

async function atRest(pages) {
  for (const page of pages) await page.evaluate(stopSending);
  let before = '';
  return until('no more packets flow', 20_000, async () => {
    await pause(1500);
    const stats = await Promise.all(pages.map((page) => page.stats()));
    const counts = (s) => [...s.outbound, ...s.inbound].map((entry) => entry.packets);
    const now = JSON.stringify(stats.map(counts));
    if (now === before) return true;
    before = now;
    return new Waiting(now);
  });
}

function participant(room, name) {
  // The page's identities are the name and something random.
  const found = room.participants.find((entry) => entry.identity.startsWith(`${name}-`));
  check(found, `${name} is not in the report: ${room.participants.map((entry) => entry.identity)}`);
  return found;
}

function agreement(name, recorded, stats) {
  const faults = [];
  for (const direction of ['publish', 'subscribe']) {
    for (const kind of ['audio', 'video']) {
      const tracks = recorded.tracks.filter((track) => track.direction === direction && track.kind === kind);
      const counters = tracks.map((track) => track.counters);
      const [media, again, padding] = ['packets', 'retransmitted', 'padding'].map((key) => sum(counters, key));
      const own = counted(stats, direction, kind);
      const line = `${name} ${direction} ${kind}: getStats ${own}, record ${media} + ${again} + ${padding}`;
      console.log(`     ${line}`);
      if (own === 0 || !within(own, media + again + padding, AGREEMENT)) faults.push(line);
    }
  }
  return faults;
}

async function agreesWithGetStats(t) {
  const from = Date.now();
  const { server, anna, ben } = await pair(t, {});
  await pause(CALL_MS);
  await atRest([anna, ben]);
  // When Anna leaves, what Ben has received of her leaves his statistics.
  const { inbound } = await ben.stats();
  const annaStats = await leave(anna);
  const benStats = { ...(await leave(ben)), inbound };
  const room = await until('the record says that both have left', 15_000, async () => {
    const { rooms } = await server.report('record');
    const left = rooms[0]?.participants.filter((entry) => entry.left_ms).length;
    return left === 2 ? rooms[0] : new Waiting(JSON.stringify(rooms).slice(0, 500));
  });
  const faults = [
    ...agreement('Anna', participant(room, 'Anna'), annaStats),
    ...agreement('Ben', participant(room, 'Ben'), benStats),
  ];
  check(faults.length === 0, faults.join('\n'));
  check(room.name === 'record' && room.sid.startsWith('RM_'), `room ${room.sid} ${room.name}`);
  for (const entry of room.participants) {
    const span = from <= entry.joined_ms && entry.joined_ms < entry.left_ms && entry.left_ms <= Date.now();
    check(span, `${entry.identity}: joined ${entry.joined_ms}, left ${entry.left_ms}`);
    check(entry.reason === 'client_initiated', `${entry.identity} left: ${entry.reason}`);
    check(entry.tracks.length === 4, `${entry.identity} has ${entry.tracks.length} tracks, not 2 out and 2 in`);
    check(entry.tracks.every((track) => track.ended_ms >= track.started_ms), `${entry.identity}: tracks have an end`);
  }
  const events = room.timeline.map((entry) => entry.event);
  for (const event of ['room_started', 'participant_joined', 'participant_active', 'track_published', 'track_subscribed', 'participant_left']) {
    check(events.includes(event), `the timeline has no ${event}: ${events}`);
  }
  const times = room.timeline.map((entry) => entry.t_ms);
  check(times.every((time, index) => index === 0 || times[index - 1] <= time), 'the timeline is in order');
}

async function survivesAKill(t) {
  const { server, anna, ben } = await pair(t, {});
  await pause(SAMPLE_AGE_MS);
  const early = await anna.stats();
  await pause(SAMPLE_AGE_MS);
  const during = (await server.report('record')).rooms[0];
  check(during.participants.length === 2, 'the report works while the server runs');
  check(during.participants.every((entry) => !entry.left_ms), 'nobody has left yet');
  await anna.click('mic');
  await pause(FACT_DELAY_MS);
  const killed = Date.now();
  await server.kill();
  await pause(1500);
  await server.restart();

  const room = (await server.report('record')).rooms.find((entry) => entry.sid === during.sid);
  const honest = (end) => end >= killed - LAST_SEEN_MS && end <= killed + 50;
  check(room.reason === 'crash', `the room ended because of ${room.reason}`);
  check(honest(room.ended_ms), `the room ended ${killed - room.ended_ms} ms before the kill`);
  for (const entry of room.participants) {
    check(entry.reason === 'crash', `${entry.identity} left because of ${entry.reason}`);
    check(honest(entry.left_ms), `${entry.identity} left ${killed - entry.left_ms} ms before the kill`);
    check(entry.tracks.every((track) => honest(track.ended_ms)), `${entry.identity}: tracks end with the server`);
  }
  check(room.timeline.some((entry) => entry.event === 'track_muted'), `the mute ${FACT_DELAY_MS} ms before the kill is gone`);
  const video = participant(room, 'Anna').tracks.find((track) => track.direction === 'publish' && track.kind === 'video');
  const saved = video.counters.packets + video.counters.retransmitted + video.counters.padding;
  check(saved >= counted(early, 'publish', 'video') * (1 - AGREEMENT), `samples: ${saved} packets of ${counted(early, 'publish', 'video')}`);

  await until('both pages come back by themselves', 60_000, async () => {
    const states = await Promise.all([anna, ben].map((page) => page.evaluate(() => window.fanlight.room.state)));
    return states.every((state) => state === 'connected') || new Waiting(states.join());
  });
  await anna.click('mic');
  await flows(anna, ben);
  const rooms = await until('the new session is on record', 5000, async () => {
    const { rooms } = await server.report('record');
    return rooms.length === 2 ? rooms : new Waiting(rooms.map((entry) => entry.sid).join());
  });
  check(rooms.some((entry) => entry.sid !== during.sid && !entry.ended_ms), 'the new session is open');
}

async function endsInOrder(t) {
  const { server, anna } = await pair(t, {});
  const ended = await server.stop();
  check(ended.code === 0, `SIGTERM ended the server with ${JSON.stringify(ended)}`);
  await until('the page says that the server was stopped', 10_000, async () => (await anna.text('error')).includes('server was stopped'));
  const [room] = (await server.report('record')).rooms;
  check(room.ended_ms && room.reason === 'shutdown', `the room ended because of ${room.reason}`);
  check(room.participants.every((entry) => entry.reason === 'server_shutdown'), 'participants left because of the shutdown');
}

export const tests = {
  'the record agrees with getStats within one percent': agreesWithGetStats,
  'after kill -9 in a call the record is honest and the call comes back': survivesAKill,
  'SIGTERM ends the sessions with a reason and then the server': endsInOrder,
};

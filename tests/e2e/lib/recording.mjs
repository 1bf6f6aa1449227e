// A fortnight of coturn's statistics, made up: always the same, in the form that `fanlight turn import` reads.
const PEOPLE = ['alice', 'bob', 'carol', 'dave', 'erin', 'frank', 'grace', 'heidi'];
const ROOMS = ['standup', 'sales', 'support', 'all hands'];
const REALM = 'turn.example.org';
const MINUTE_MS = 60_000;

/** The days of `recording`, the first and the last. */
export const DAYS = ['2026-11-08', '2026-11-21'];

/** Lines of UTC time, channel and payload. */
export function recording() {
  const random = numbers(7);
  const calls = [];
  for (let day = Date.parse(DAYS[0]); day <= Date.parse(DAYS[1]); day += 86_400_000) {
    const weekend = [0, 6].includes(new Date(day).getUTCDay());
    const count = weekend ? 2 + random(3) : 9 + random(8);
    for (let call = 0; call < count; call += 1) calls.push(made(random, day));
  }
  // coturn counts its allocations in the order of their opening.
  calls.sort((a, b) => a.start - b.start);
  const lines = calls.flatMap((call, place) => told(call, String(place + 1).padStart(18, '0')));
  lines.sort((a, b) => a.at - b.at || a.order - b.order);
  return `${lines.map((line) => `${new Date(line.at).toISOString()}\t${line.channel}\t${line.payload}`).join('\n')}\n`;
}

function made(random, day) {
  const start = day + (7 * 60 + random(11 * 60)) * MINUTE_MS + random(60_000);
  const kind = random(10);
  return {
    start,
    person: PEOPLE[random(PEOPLE.length)],
    room: ROOMS[random(ROOMS.length)],
    minutes: 2 + random(50),
    // Most relay media; some only check, some not even that.
    perMinute: kind > 2 ? 2_000_000 + random(9_000_000) : kind > 0 ? 400 : 0,
    transport: ['UDP', 'UDP', 'UDP', 'TCP', 'TLS/TCP'][random(5)],
    remote: `198.51.100.${1 + random(250)}:${20_000 + random(40_000)}`,
    expires: random(12) === 0,
  };
}

function told(call, id) {
  const user = `${Math.floor(call.start / 1000) + 3600}:${call.room}/${call.person}`;
  const name = `turn/realm/${REALM}/user/${user}/allocation/${id}`;
  const path = `type=${call.transport}, local=203.0.113.5:3478, remote=${call.remote}, ssl=NONE, cipher=NONE`;
  const lines = [];
  const say = (at, what, payload) => lines.push({ at, order: lines.length, channel: `${name}/${what}`, payload });
  say(call.start, 'status', `new lifetime=3600, ${path}`);
  const total = { client: 0, peer: 0, packets: 0 };
  for (let minute = 1; minute <= call.minutes; minute += 1) {
    const packets = Math.ceil(call.perMinute / 1000);
    if (packets === 0) continue;
    const at = call.start + minute * MINUTE_MS;
    const up = Math.floor(call.perMinute / 3);
    const down = call.perMinute - up;
    say(at, 'traffic', `rcvp=${packets}, rcvb=${up + 4 * packets}, sentp=${packets}, sentb=${down + 4 * packets}`);
    say(at + 1, 'traffic/peer', `rcvp=${packets}, rcvb=${down}, sentp=${packets}, sentb=${up}`);
    total.packets += packets;
    total.client += up + 4 * packets;
    total.peer += down;
  }
  const end = call.start + call.minutes * MINUTE_MS + 5_000;
  if (!call.expires) say(end, 'status', `refreshed lifetime=0, ${path}`);
  const gone = call.expires ? call.start + 60 * MINUTE_MS : end + 1_000;
  const up = total.client - 4 * total.packets;
  const counts = (received, sent) =>
    `rcvp=${total.packets}, rcvb=${received}, sentp=${total.packets}, sentb=${sent}`;
  say(gone, 'status', 'deleted');
  say(gone, 'total_traffic', counts(total.client, total.peer + 4 * total.packets));
  say(gone, 'total_traffic/peer', counts(total.peer, up));
  return lines;
}

/** Whole numbers below a bound, from a seed (a linear congruential generator). */
function numbers(seed) {
  let state = seed;
  return (bound) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
}

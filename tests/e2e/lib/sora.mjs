// What Sora's stats exporter does: HTTP/2 with prior knowledge or TLS, a few connections, one report a request.
import http2 from 'node:http2';
import { run } from './children.mjs';

const EXPORTERS = 5;
const HEADERS = {
  ':method': 'POST',
  ':path': '/collector',
  'content-type': 'application/json',
  'x-sora-stats-exporter-type': 'connection.user-agent',
};

/** Sora's exporters, connected to one collector. */
export class Exporters {
  /** `tls` takes what Node does: `ca`, and `cert` and `key` of a client. */
  static async connect(url, tls = {}) {
    const exporters = new Exporters();
    exporters.sessions = [];
    exporters.next = 0;
    for (let count = 0; count < EXPORTERS; count += 1) exporters.sessions.push(await connect(url, tls));
    return exporters;
  }

  /** Posts a body; gives status, headers and text of the answer. */
  post(body, headers = {}) {
    const session = this.sessions[this.next++ % this.sessions.length];
    return request(session, { ...HEADERS, ...headers }, typeof body === 'string' ? body : JSON.stringify(body));
  }

  /** The SETTINGS that the collector sent. */
  get settings() {
    return this.sessions[0].remoteSettings;
  }

  close() {
    for (const session of this.sessions) session.close();
  }
}

function connect(url, tls) {
  const session = http2.connect(url, tls);
  let watch;
  const connected = new Promise((resolve, reject) => {
    session.once('error', reject);
    // Its SETTINGS are there with the first frame; until then a client may not know what it may do.
    session.once('remoteSettings', () => resolve(session));
    // Where TLS ends right after the handshake Node says neither `error` nor `close`.
    watch = setInterval(() => session.destroyed && reject(new Error('the connection was closed')), 100);
  });
  return connected.finally(() => clearInterval(watch));
}

function request(session, headers, body) {
  return new Promise((resolve, reject) => {
    const stream = session.request(headers);
    const answer = { text: '' };
    stream.setEncoding('utf8');
    stream.on('response', (got) => Object.assign(answer, { status: got[':status'], headers: got }));
    stream.on('data', (part) => (answer.text += part));
    stream.on('end', () => resolve(answer));
    stream.on('error', reject);
    stream.on('close', () => reject(new Error('the request was cut off')));
    stream.end(body);
  });
}

/** Sora's ids: 26 characters. */
export const id = (kind, number) => `${kind}${String(number).padStart(26 - kind.length, '0')}`;

/** One report as Sora wraps it; `stats` as objects. */
export function envelope({ connection, atMs, stats }) {
  return {
    type: 'connection.user-agent',
    id: id('MESSAGE', connection),
    timestamp: `${new Date(atMs).toISOString().slice(0, -1)}456Z`,
    label: 'WebRTC SFU Sora',
    version: '2025.1.0',
    node_name: 'sora@127.0.0.1',
    multistream: true,
    simulcast: false,
    spotlight: false,
    role: 'sendrecv',
    channel_id: `channel-${connection % 50}`,
    session_id: id('SESSION', connection % 50),
    client_id: id('CLIENT', connection),
    connection_id: id('CONNECTION', connection),
    stats,
  };
}

/** The same as text, with `statsText` as it is. */
export function envelopeText({ connection, atMs, statsText }) {
  const around = JSON.stringify(envelope({ connection, atMs, stats: null }));
  return `${around.slice(0, around.lastIndexOf('null'))}${statsText}}`;
}

/** The nanoseconds of a report's time, as text: they have no room in a number. */
export const atNs = (atMs) => `${BigInt(atMs) * 1_000_000n + 456_000n}`;

/** JSON with sorted keys, without the browser's own time and without nulls, which Kohaku leaves out too: equal for equal values. */
export function canonical(object) {
  const sorted = (value) => {
    if (Array.isArray(value)) return value.map(sorted);
    if (value === null || typeof value !== 'object') return value;
    const keys = Object.keys(value).filter((key) => value[key] !== null);
    return Object.fromEntries(keys.sort().map((key) => [key, sorted(value[key])]));
  };
  const { timestamp, ...rest } = object;
  return JSON.stringify(sorted(rest));
}

/** Which objects of a series of reports say something new, told independently of the collector. */
export function sayingSomethingNew(reports, heartbeatMs = 600_000) {
  const last = new Map();
  const kept = [];
  for (const { atMs, stats } of reports) {
    for (const object of stats) {
      const key = `${object.type}\n${object.id}`;
      const value = canonical(object);
      const before = last.get(key);
      if (before && before.value === value && atMs - before.atMs < heartbeatMs) continue;
      last.set(key, { value, atMs });
      kept.push({ atMs, type: object.type, id: object.id, value });
    }
  }
  return kept;
}

/** Rows as text, in a fixed order, for comparing; times may be those of another connection, so much later. */
export const asRows = (kept, laterMs = 0) =>
  kept.map(({ atMs, type, id, value }) => [atNs(atMs + laterMs), type, id, value].join('\t')).sort();

/** Tables are read one after the other from their beginning: joined, 200,000 rows would be looked up one by one. */
const READ = `
import collections, json, sqlite3, sys
base = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
known = base.execute("SELECT number, connection_id FROM connections WHERE source = 'sora' AND ? IN ('', connection_id)", sys.argv[2:])
sora = dict(known)
kept, texts = collections.defaultdict(list), {}
for connection, at_ns, kind, name, data in base.execute("SELECT connection, at_ns, type, id, data FROM stats"):
    if connection in sora:
        kept[sora[connection]].append([str(at_ns), kind, name, texts.setdefault(data, len(texts))])
reports = sum(connection in sora for (connection,) in base.execute("SELECT connection FROM reports"))
json.dump({"kept": kept, "reports": reports, "texts": list(texts)}, sys.stdout)
`;

/** What is in `clients.db` of Sora's, or of one connection: the number of reports, and every row as [`asRows`] has it. */
export async function stored(file, connection = '') {
  const { kept, reports, texts } = JSON.parse(await run('python3', ['-c', READ, file, connection], { limitMs: 120_000 }));
  const values = texts.map((text) => canonical(JSON.parse(text)));
  for (const rows of Object.values(kept)) {
    for (const [place, [at, type, name, text]] of rows.entries()) rows[place] = [at, type, name, values[text]].join('\t');
    rows.sort();
  }
  return { kept, reports };
}

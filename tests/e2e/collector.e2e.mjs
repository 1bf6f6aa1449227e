// The collector in Kohaku's place: reports of real browsers, replayed as Sora sends them.
import fs from 'node:fs';
import { start, stop, run } from './lib/children.mjs';
import { meetEachOther } from './lib/media.mjs';
import { FANLIGHT, ROOT } from './lib/paths.mjs';
import { Postgres } from './lib/postgres.mjs';
import { freeTcpPorts } from './lib/server.mjs';
import { asRows, atNs, canonical, envelope, envelopeText, Exporters, id, sayingSomethingNew, stored } from './lib/sora.mjs';
import { certificate } from './lib/trust.mjs';
import { check, pause, until } from './lib/wait.mjs';

const CONNECTIONS = 200;
const REPORTS = 60;
const STEP_MS = 60_000;
const SAMPLE_MS = 1_000;

/** In the page: what `getStats()` says of each peer connection, as text, so that nothing is changed on the way. */
async function rawStats() {
  const reports = [];
  for (const peer of window.e2ePeers) {
    if (peer.connectionState !== 'connected') continue;
    reports.push(JSON.stringify([...(await peer.getStats()).values()]));
  }
  return reports;
}

let captured;

/** Two people in a call, one in each browser: a series of reports for each of their peer connections, sampled once for all tests. */
async function capture(t, server) {
  captured ??= await sample(t, server);
  return captured;
}

async function sample(t, server) {
  const anna = await t.page('chromium');
  const ben = await t.page('firefox');
  await anna.join(server, { room: 'stats', name: 'Anna' });
  await ben.join(server, { room: 'stats', name: 'Ben' });
  await meetEachOther(anna, ben, { protocol: 'udp' });
  const series = new Map();
  const begun = Date.now();
  for (let sample = 0; sample < REPORTS; sample += 1) {
    await pause(Math.max(0, begun + sample * SAMPLE_MS - Date.now()));
    for (const page of [anna, ben]) {
      for (const [peer, text] of (await page.evaluate(rawStats)).entries()) {
        const key = `${page.kind} ${peer}`;
        series.set(key, [...(series.get(key) ?? []), JSON.parse(text)]);
      }
    }
  }
  for (const kind of ['chromium', 'firefox']) {
    const found = [...series].filter(([key]) => key.startsWith(kind)).flatMap(([, reports]) => reports.flat());
    for (const type of ['transport', 'candidate-pair', 'inbound-rtp', 'outbound-rtp', 'codec']) {
      // Firefox before 124 has no transport.
      if (kind === 'firefox' && type === 'transport') continue;
      check(found.some((object) => object.type === type), `${kind} has reported no ${type}`);
    }
  }
  return [...series.values()].filter((reports) => reports.length === REPORTS);
}

/** When a connection says its nth report: not all of them in the same moment. */
const timeOf = (beginMs, number, connection) => beginMs + number * STEP_MS + connection;

/** Posts each series for many connections, each in its order; gives the count of each status. */
async function replay(exporters, series, { connections, beginMs }) {
  const texts = series.map((reports) => reports.map((stats) => JSON.stringify(stats)));
  const statuses = new Map();
  await Promise.all(
    Array.from({ length: connections }, async (_, connection) => {
      for (const [number, statsText] of texts[connection % texts.length].entries()) {
        const atMs = timeOf(beginMs, number, connection);
        const { status } = await exporters.post(envelopeText({ connection, atMs, statsText }));
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }
    }),
  );
  return statuses;
}

/** Every object that says something new is there once, and nothing else; gives how many that are. */
function sameAsSaid({ kept }, series, { connections, beginMs }) {
  const expected = series.map((reports) =>
    sayingSomethingNew(reports.map((stats, number) => ({ atMs: timeOf(beginMs, number, 0), stats }))),
  );
  let count = 0;
  for (let connection = 0; connection < connections; connection += 1) {
    const found = kept[id('CONNECTION', connection)] ?? [];
    const wanted = asRows(expected[connection % series.length], connection);
    check(found.length === wanted.length, `connection ${connection}: ${found.length} rows, not ${wanted.length}`);
    const at = found.findIndex((row, place) => row !== wanted[place]);
    check(at < 0, `connection ${connection}: ${found[at]}\nis not\n${wanted[at]}`);
    count += found.length;
  }
  return count;
}

/** The cases of de-duplication, on a connection of their own. */
async function deduplicates(exporters, file, beginMs) {
  const connection = 900;
  const object = (value, more = {}) => ({ id: 'V1', type: 'outbound-rtp', timestamp: Math.random(), frameWidth: value, ...more });
  const series = [
    [object(1280)], // first
    [object(1280)], // as before
    [object(640)], // another
    [object(1280)], // a value that returns is kept
    [object(1280), { id: 'V1', type: 'codec', timestamp: 1, clockRate: 90000 }], // the same id, another type
    [{ clockRate: 90000.0, type: 'codec', timestamp: 2, id: 'V1' }], // members in another order
    [object(1280, { extra: null })], // a member without a value is none
    [object(1280, { extra: 1 })], // one more member
    [], // nothing at all
  ];
  const reports = series.map((stats, number) => ({ atMs: beginMs + number * STEP_MS, stats }));
  // Unchanged for long is told again.
  const lateMs = beginMs + 18 * STEP_MS;
  reports.push({ atMs: lateMs, stats: [object(1280, { extra: 1 })] });
  for (const report of reports) {
    check((await exporters.post(envelope({ connection, ...report }))).status === 204, JSON.stringify(report));
  }
  const name = id('CONNECTION', connection);
  const rows = (await stored(file, name)).kept[name];
  const wanted = asRows(sayingSomethingNew(reports));
  check(JSON.stringify(rows) === JSON.stringify(wanted), `${rows.join('\n')}\nis not\n${wanted.join('\n')}`);
  check(rows.length === 6 && rows.at(-1).startsWith(atNs(lateMs)), 'five different values, and one again after long');
}

/** Statuses of what cannot be taken. */
async function refuses(exporters, beginMs) {
  const good = envelope({ connection: 901, atMs: beginMs, stats: [] });
  const without = (key) => JSON.stringify({ ...good, [key]: undefined });
  for (const [expected, body, headers] of [
    [204, good],
    [204, { ...good, unknown: 1 }],
    [204, { ...good, stats: [7, { id: 'no type', timestamp: 1 }, null] }],
    [400, '{'],
    [400, { ...good, stats: null }],
    [400, { ...good, connection_id: 'short' }],
    [400, { ...good, channel_id: 'x'.repeat(256) }],
    [400, { ...good, role: 'whatever' }],
    ...['timestamp', 'label', 'role', 'multistream', 'simulcast', 'session_id', 'stats'].map((key) => [400, without(key)]),
    [400, good, { 'x-sora-stats-exporter-type': 'connection.sora' }],
    [400, good, { 'content-type': 'text/plain' }],
    [404, good, { ':path': '/elsewhere' }],
    [405, '', { ':method': 'PUT' }],
    [413, `${JSON.stringify(good)}${' '.repeat(4 * 1024 * 1024)}`],
  ]) {
    const answer = await exporters.post(body, headers);
    check(answer.status === expected, `${answer.status}, not ${expected}, for ${JSON.stringify(body).slice(0, 200)}`);
    if (expected >= 400) check(JSON.parse(answer.text).message, `${expected} says why: ${answer.text}`);
  }
}

async function takesKohakusPlace(t) {
  const [port, exporterPort, other, otherExporter] = await freeTcpPorts(4);
  const server = await t.server(`fanlight: {collector: {enabled: true, port: ${port}, exporter_port: ${exporterPort}}}\n`);
  const series = await capture(t, server);
  fs.writeFileSync(t.file('series.json'), JSON.stringify(series.map((reports) => reports.at(-1)), null, 1));
  const beginMs = Date.now() - REPORTS * STEP_MS;

  const exporters = await Exporters.connect(`http://127.0.0.1:${port}`);
  check(exporters.settings.maxConcurrentStreams >= 250, 'as many streams as Kohaku has');
  check(exporters.settings.maxFrameSize >= 1024 * 1024, 'as large frames as Kohaku takes');
  const all = { connections: CONNECTIONS, beginMs };
  const begun = Date.now();
  const statuses = await replay(exporters, series, all);
  const tookMs = Date.now() - begun;
  check(statuses.size === 1 && statuses.get(204) === CONNECTIONS * REPORTS, JSON.stringify([...statuses]));
  // Sora does not know whether its last word arrived: it may say it again.
  const last = series.map((reports) => reports.slice(-1));
  const again = await replay(exporters, last, { connections: CONNECTIONS, beginMs: timeOf(beginMs, REPORTS - 1, 0) });
  check(again.get(204) === CONNECTIONS, `the same reports again: ${JSON.stringify([...again])}`);

  const file = `${server.dataDir}/clients.db`;
  const found = await stored(file);
  check(found.reports === CONNECTIONS * REPORTS, `${found.reports} reports are stored`);
  const rows = sameAsSaid(found, series, all);
  const perSeries = series.map((reports) => reports.flat().length);
  const said = Array.from({ length: CONNECTIONS }, (_, place) => perSeries[place % series.length]);
  const objects = said.reduce((sum, count) => sum + count, 0);
  console.log(`     ${CONNECTIONS * REPORTS} reports, ${objects} objects, ${rows} kept, ${tookMs} ms`);
  check(rows > CONNECTIONS * REPORTS && rows < objects, 'some objects are as before, some are not');
  await deduplicates(exporters, file, beginMs);
  await refuses(exporters, beginMs);
  exporters.close();

  await tellsOfIt(`http://127.0.0.1:${exporterPort}/metrics`, rows);
  await withKohakusConfiguration(t, series, beginMs, other, otherExporter);
}

/** The exporter's numbers: the replayed reports, those of other checks, and the pages' own. */
async function tellsOfIt(url, rows) {
  const text = await (await fetch(url)).text();
  const metrics = new Map(text.trim().split('\n').map((line) => line.split(/ (?=[^ ]*$)/)));
  const isAtLeast = (name, least) => check(Number(metrics.get(name)) >= least, `${name} is ${metrics.get(name)}, not ${least}`);
  isAtLeast('fanlight_collector_stored_objects_total', rows);
  isAtLeast('fanlight_collector_stored_reports_total', CONNECTIONS * REPORTS);
  isAtLeast('fanlight_collector_duplicate_reports_total', CONNECTIONS);
  isAtLeast('fanlight_collector_reports_total{status="204"}', CONNECTIONS * (REPORTS + 1));
  const labels = `host="${new URL(url).hostname}`;
  check(text.includes(`echo_requests_total{code="413",${labels}`), 'what was refused is counted by status');
}

/** The same by `fanlight collector` with Kohaku's configuration, where only known clients come in. */
async function withKohakusConfiguration(t, series, beginMs, port, exporterPort) {
  const connections = 20;
  const { authority, cert, key } = await certificate();
  const config = t.file('config.ini');
  const dataDir = t.file('kohaku');
  fs.mkdirSync(dataDir);
  fs.writeFileSync(
    config,
    `https = true\nlisten_addr = 127.0.0.1\nlisten_port = ${port}\nexporter_listen_port = ${exporterPort}\n` +
      `log_dir = ${dataDir}\nlog_name = kohaku.jsonl\npostgres_uri = postgres://nowhere/kohaku\n` +
      `tls_fullchain_file = ${cert}\ntls_privkey_file = ${key}\ntls_verify_cacert_path = ${authority}\n` +
      'http2_max_concurrent_streams = 250\nhttp2_max_read_frame_size = 1048576\nhttp2_idle_timeout = 60\n',
  );
  const args = ['collector', '--kohaku-config', config, '--data-dir', dataDir, '--sqlite'];
  const child = start(FANLIGHT, args, { stdio: 'ignore' });
  try {
    const read = (path) => fs.readFileSync(path);
    const known = { ca: read(authority), cert: read(cert), key: read(key) };
    const url = `https://127.0.0.1:${port}`;
    const exporters = await until('the collector serves', 15_000, () => Exporters.connect(url, known).catch(() => null));
    const statuses = await replay(exporters, series, { connections, beginMs });
    check(statuses.get(204) === connections * REPORTS, JSON.stringify([...statuses]));
    sameAsSaid(await stored(`${dataDir}/clients.db`), series, { connections, beginMs });
    exporters.close();
    for (const stranger of [{ ca: known.ca }, { ca: known.ca, ...(await strangersCertificate(t)) }]) {
      const refused = await Exporters.connect(url, stranger).then(
        (exporters) => exporters.post(envelope({ connection: 1, atMs: beginMs, stats: [] })).catch((error) => error),
        (error) => error,
      );
      check(refused instanceof Error, `somebody without a good certificate is let in: ${JSON.stringify(refused)}`);
    }
  } finally {
    const ended = await stop(child);
    check(ended.code === 0, `the collector ended with ${JSON.stringify(ended)}`);
  }
  const lines = fs.readFileSync(`${dataDir}/kohaku.jsonl`, 'utf8').trim().split('\n').map(JSON.parse);
  const posts = lines.filter((line) => line.message === 'POST' && line.status === 204);
  check(posts.length === connections * REPORTS, `${posts.length} posts are in the log`);
}

/** The same into PostgreSQL, where Kohaku's configuration says, read back by SQL. */
async function fillsKohakusTables(t) {
  const series = await capture(t, await t.server());
  const beginMs = Date.now() - REPORTS * STEP_MS;
  const all = { connections: CONNECTIONS, beginMs };
  const [port, exporterPort] = await freeTcpPorts(2);
  const postgres = await Postgres.start();
  t.cleanups.push(() => postgres.stop());
  const dataDir = t.file('postgres');
  fs.mkdirSync(dataDir);
  const config = t.file('postgres.ini');
  fs.writeFileSync(
    config,
    `listen_addr = 127.0.0.1\nlisten_port = ${port}\nexporter_listen_port = ${exporterPort}\nlog_dir = ${dataDir}\n` +
      `postgres_uri = ${postgres.uri}\n`,
  );
  const child = start(FANLIGHT, ['collector', '--kohaku-config', config, '--data-dir', dataDir], { stdio: 'ignore' });
  try {
    const url = `http://127.0.0.1:${port}`;
    const exporters = await until('the collector serves', 15_000, () => Exporters.connect(url).catch(() => null));
    const begun = Date.now();
    const statuses = await replay(exporters, series, all);
    const tookMs = Date.now() - begun;
    check(statuses.size === 1 && statuses.get(204) === CONNECTIONS * REPORTS, JSON.stringify([...statuses]));
    const rows = sameAsSaid(await inTables(postgres), series, all);
    console.log(`     into PostgreSQL: ${rows} kept, ${tookMs} ms`);
    const last = series.map((reports) => reports.slice(-1));
    await replay(exporters, last, { connections: CONNECTIONS, beginMs: timeOf(beginMs, REPORTS - 1, 0) });
    sameAsSaid(await inTables(postgres), series, all);
    const [[connections, labels]] = await postgres.sql('SELECT count(*), min(label) FROM sora_connection');
    check(Number(connections) === CONNECTIONS && labels === 'WebRTC SFU Sora', `${connections} connections`);
    exporters.close();
  } finally {
    const ended = await stop(child);
    check(ended.code === 0, `the collector ended with ${JSON.stringify(ended)}`);
  }
  await isInDashboards(postgres, series, beginMs);
}

/** What is in Kohaku's tables, as `stored` has it of SQLite. */
async function inTables(postgres) {
  const texts = new Map();
  for (const [hash, text] of await postgres.sql('SELECT DISTINCT md5(rtc_stats_data::text), rtc_stats_data::text FROM sora_user_agent_stats')) {
    texts.set(hash, canonical(JSON.parse(text)));
  }
  const kept = {};
  const rows = await postgres.sql(
    "SELECT connection_id, (extract(epoch FROM timestamp) * 1000000)::bigint || '000', rtc_stats_type, rtc_stats_id, md5(rtc_stats_data::text) FROM sora_user_agent_stats",
  );
  for (const [connection, at, type, name, hash] of rows) (kept[connection] ??= []).push([at, type, name, texts.get(hash)].join('\t'));
  for (const found of Object.values(kept)) found.sort();
  return { kept };
}

/** A panel's query, as Grafana sends it: what a browser received is what it shows. */
async function isInDashboards(postgres, series, beginMs) {
  const { panels } = JSON.parse(fs.readFileSync(`${ROOT}/grafana/dashboards/connection.json`, 'utf8'));
  const ofVideo = (reports) => reports.find((object) => object.type === 'inbound-rtp' && object.kind === 'video');
  const place = series.findIndex((reports) => ofVideo(reports[0]) && ofVideo(reports[0])?.id === ofVideo(reports.at(-1))?.id);
  check(place >= 0, 'one video from the first report to the last');
  const time = (ms) => `'${new Date(ms).toISOString()}'`;
  const ask = (title) => {
    const sql = panels.find((panel) => panel.title === title).targets[0].rawSql;
    return postgres.sql(
      sql
        .replaceAll('$__timeFrom()', time(beginMs))
        .replaceAll('$__timeTo()', time(beginMs + REPORTS * STEP_MS))
        .replaceAll('$__interval_ms', String(30 * 86_400_000))
        .replaceAll('${connection_id:sqlstring}', `'${id('CONNECTION', place)}'`)
        .replace(/\$\{(if|end)_plain:raw\}/g, '')
        .replaceAll('${if_timescale:raw}', '/*')
        .replaceAll('${end_timescale:raw}', '*/'),
    );
  };
  const shown = new Map((await ask('Inbound video: bitrate')).map(([, name, value]) => [name, Number(value)]));
  const [first, end] = [ofVideo(series[place][0]), ofVideo(series[place].at(-1))];
  const expected = ((end.bytesReceived - first.bytesReceived) * 8) / (((REPORTS - 1) * STEP_MS) / 1000);
  const value = shown.get(end.id);
  check(Math.abs(value / expected - 1) < 0.05, `${value} bit/s are shown, ${expected} were received`);
  for (const title of ['Connection', 'Inbound audio: jitter', 'Outbound video: bitrate', 'Candidate pairs: last state', 'Last values']) {
    check((await ask(title)).length > 0, `${title} shows nothing`);
  }
}

async function strangersCertificate(t) {
  const [key, cert] = [t.file('stranger.key'), t.file('stranger.pem')];
  const about = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '7', '-subj', '/CN=stranger'];
  await run('openssl', ['req', '-x509', ...about, '-keyout', key, '-out', cert]);
  return { cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
}

// It samples for a minute before it begins.
takesKohakusPlace.limitMs = 300_000;
fillsKohakusTables.limitMs = 600_000;

export const tests = {
  'the collector takes what Sora sends of two browsers: 200 connections for an hour, over h2c and mutual TLS': takesKohakusPlace,
  'the collector fills the tables of Kohaku in PostgreSQL, and the dashboards show it': fillsKohakusTables,
};


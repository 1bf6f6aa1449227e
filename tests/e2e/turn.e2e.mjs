// Calls through a relay: our own TURN server over UDP, TCP and TLS, and coturn; and coturn's own clients against ours.
import dgram from 'node:dgram';
import fs from 'node:fs';
import { once } from 'node:events';
import { OWN_ADDRESSES } from './lib/browser.mjs';
import { run, start, stop } from './lib/children.mjs';
import { flows } from './lib/media.mjs';
import { freeTcpPorts } from './lib/server.mjs';
import { certificate } from './lib/trust.mjs';
import { statsAtTheEnd, stopSending } from './lib/inpage.mjs';
import { check, pause, until, Waiting, within } from './lib/wait.mjs';

/** The record and a browser count the same bytes. */
const AGREEMENT = 0.01;
const CALL_MS = 15_000;
/**
 * What a connectivity check weighs as STUN: browsers count checks, of every pair, but not among their bytes. An answer
 * is a header (20), the address seen (12), the integrity (24) and the fingerprint (8); a request has user name, priority
 * and role instead of the address, 100 in all as our server writes it and 120 as Chromium does.
 */
const CHECK_BYTES = { requestSent: 120, requestReceived: 100, response: 64 };
/** What is under way arrives: on a busy machine a browser reads TLS a good quarter of a second late. */
const REST_MS = 2_000;
const SECRET = 'a-secret-that-only-tests-know-0123456789';

/** An address of this machine that browsers take for a server's: loopback only where there is nothing else. */
const HOST = OWN_ADDRESSES.find((address) => address.includes('.') && !address.startsWith('127.')) ?? '127.0.0.1';

async function ourTurn(t, extra = {}) {
  const [udpPort, tlsPort] = await freeTcpPorts(2);
  const { cert, key } = await certificate();
  const ports = { udp_port: udpPort, tls_port: tlsPort };
  // Firefox takes no address for a server with TLS.
  const turn = { enabled: true, domain: 'localhost', cert_file: cert, key_file: key, ...ports, ...extra };
  const own = { turn: { static_auth_secret: SECRET } };
  const server = await t.server(`turn: ${JSON.stringify(turn)}\nfanlight: ${JSON.stringify(own)}\n`);
  return { server, udpPort, tlsPort };
}

function callThroughOurs(transport) {
  return async (t) => {
    const { server } = await ourTurn(t);
    await relayedCall(t, server, transport);
  };
}

async function callThroughCoturn(t) {
  const [port, statsPort] = await freeTcpPorts(2);
  const turnServers = [{ host: HOST, port, protocol: 'udp', secret: SECRET }];
  const rtc = `  turn_servers: ${JSON.stringify(turnServers)}\n`;
  const coturn = { listen: `127.0.0.1:${statsPort}` };
  const server = await t.server(`${rtc}fanlight: ${JSON.stringify({ coturn })}\n`);
  await startCoturn(t, port, statsPort);
  await relayedCall(t, server, 'udp');
}

async function startCoturn(t, port, statsPort) {
  const config = [
    ...[`listening-ip=${HOST}`, `relay-ip=${HOST}`, `listening-port=${port}`, 'realm=coturn.test', 'fingerprint'],
    ...['use-auth-secret', `static-auth-secret=${SECRET}`, 'no-tls', 'no-dtls', 'no-cli', 'no-multicast-peers'],
    ...['min-port=40001', 'max-port=40400', 'allow-loopback-peers', `redis-statsdb="ip=127.0.0.1 port=${statsPort}"`],
    ...[`pidfile=${t.file('coturn.pid')}`, `userdb=${t.file('turndb')}`, 'log-file=stdout', 'simple-log'],
  ];
  fs.writeFileSync(t.file('coturn.conf'), `${config.join('\n')}\n`);
  const log = fs.openSync(t.file('coturn.log'), 'w');
  const child = start('turnserver', ['-c', t.file('coturn.conf')], { stdio: ['ignore', log, log] });
  t.cleanups.push(() => stop(child));
  await until('coturn listens', 10_000, async () => {
    const text = fs.readFileSync(t.file('coturn.log'), 'utf8');
    return /Total General servers/.test(text) || new Waiting(text.slice(-500));
  });
}

/** Chromium and Firefox in a call where every packet is relayed; what the record says of it is what they counted. */
async function relayedCall(t, server, transport) {
  const query = { adaptive: '0' };
  const anna = await t.page('chromium', { relay: transport });
  const ben = await t.page('firefox', { relay: transport });
  await anna.join(server, { room: 'relayed', name: 'Anna', query });
  await ben.join(server, { room: 'relayed', name: 'Ben', query });
  await flows(anna, ben);
  await flows(ben, anna);
  await pause(CALL_MS);
  await anna.screenshot(t.file('anna.png'));
  await ben.screenshot(t.file('ben.png'));
  for (const page of [anna, ben]) await page.evaluate(stopSending);
  await pause(REST_MS);
  const counted = {};
  for (const page of [anna, ben]) {
    const { pairs, checks } = await page.evaluate(statsAtTheEnd);
    check(pairs.length > 0, `${page.name}: no candidate pair is in use`);
    for (const pair of pairs) {
      check(pair.type === 'relay', `${page.name}: goes by ${JSON.stringify(pair)}, not by a relay`);
      check(pair.relayProtocol === transport, `${page.name}: reaches the relay over ${pair.relayProtocol}, not ${transport}`);
    }
    const sum = (key) => pairs.reduce((total, pair) => total + pair[key], 0);
    const { requestSent, requestReceived, response } = CHECK_BYTES;
    counted[page.name] = {
      sent: sum('bytesSent') + checks.requestsSent * requestSent + checks.responsesSent * response,
      received: sum('bytesReceived') + checks.requestsReceived * requestReceived + checks.responsesReceived * response,
    };
    await page.click('leave');
  }
  await recorded(server, counted);
}

/** Until the record has both sessions, ended, with the bytes that the browsers counted, in their room; prints them. */
async function recorded(server, counted) {
  const lines = await until('the record has both relayed sessions as the browsers counted them', 20_000, async () => {
    const sessions = await server.turn('sessions');
    const faults = [];
    const lines = [];
    for (const [name, { sent, received }] of Object.entries(counted)) {
      const own = sessions.filter((session) => session.identity?.startsWith(`${name}-`));
      if (own.length === 0) faults.push(`${name} has no session`);
      if (own.some((session) => session.room !== 'relayed')) faults.push(`${name}: room ${own.map((s) => s.room)}`);
      if (own.some((session) => session.end_reason === null)) faults.push(`${name}: not ended`);
      const sum = (key) => own.reduce((total, session) => total + session[key], 0);
      const [up, down] = [sum('peer_tx_bytes'), sum('peer_rx_bytes')];
      if (!within(up, sent, AGREEMENT)) faults.push(`${name} sent ${sent}, recorded ${up}`);
      if (!within(down, received, AGREEMENT)) faults.push(`${name} received ${received}, recorded ${down}`);
      lines.push(`     ${name}: sent ${sent} and received ${received} bytes, recorded ${up} and ${down}`);
    }
    return faults.length === 0 ? lines : new Waiting(`${faults.join('; ')} in ${JSON.stringify(sessions)}`);
  });
  console.log(lines.join('\n'));
}

/** A server that ends while it relays says every byte of it. */
async function endedWhileRelaying(t) {
  const peer = '127.0.0.2';
  const { server, udpPort } = await ourTurn(t, { allow_restricted_peer_cidrs: [`${peer}/32`] });
  const socket = dgram.createSocket('udp4').bind(0, peer);
  await once(socket, 'listening');
  t.cleanups.push(() => socket.close());
  let got = 0;
  socket.on('message', (message, from) => {
    got += message.length;
    socket.send(message, from.port, from.address);
  });
  const to = ['-e', peer, '-r', String(socket.address().port), '-u', 'uclient', '-W', SECRET, '-p', String(udpPort)];
  const load = start('turnutils_uclient', ['-c', ...to, '-n', '100000', '-m', '2', '-l', '400', HOST], { stdio: 'ignore' });
  t.cleanups.push(() => stop(load, 'SIGKILL'));
  await until('packets are relayed', 10_000, async () => got > 20 * 400 || new Waiting(`${got} bytes`));
  const { code } = await server.stop();
  check(code === 0, `the server ended with ${code}`);
  const sessions = await server.turn('sessions');
  const up = sessions.reduce((total, session) => total + session.peer_tx_bytes, 0);
  check(up === got && got > 0, `${up} bytes are recorded, the peer got ${got}: ${JSON.stringify(sessions)}`);
  check(
    sessions.every((session) => session.quality === 'exact' && session.end_reason !== null),
    JSON.stringify(sessions),
  );
}

/** coturn's load client and its STUN client take our server for one of theirs. */
async function coturnsClients(t) {
  // Loopback may be reached only where it is allowed address by address, and never at an address of our own.
  const peer = '127.0.0.2';
  const { server, udpPort, tlsPort } = await ourTurn(t, { allow_restricted_peer_cidrs: [`${peer}/32`] });
  const [peerPort] = await freeTcpPorts(1);
  const echo = start('turnutils_peer', ['-L', peer, '-p', String(peerPort)], { stdio: 'ignore' });
  t.cleanups.push(() => stop(echo));
  const stun = await run('turnutils_stunclient', ['-p', String(udpPort), HOST]);
  check(/reflexive addr/.test(stun), `turnutils_stunclient: ${stun}`);
  const [messages, clients, bytes] = [20, 2, 400];
  const load = ['-c', '-e', peer, '-r', String(peerPort), '-u', 'uclient', '-W', SECRET];
  load.push('-n', String(messages), '-m', String(clients), '-l', String(bytes));
  const runs = {
    UDP: ['-p', String(udpPort)],
    TCP: ['-t', '-p', String(udpPort)],
    TLS: ['-t', '-S', '-p', String(tlsPort)],
    'UDP with indications': ['-s', '-p', String(udpPort)],
    'TCP with indications': ['-t', '-s', '-p', String(udpPort)],
  };
  for (const [name, args] of Object.entries(runs)) {
    const said = await run('turnutils_uclient', [...load, ...args, HOST]);
    fs.writeFileSync(t.file(`uclient-${name.replaceAll(' ', '-')}.txt`), said);
    const all = messages * clients;
    check(said.includes(`tot_send_msgs=${all}, tot_recv_msgs=${all}`), `turnutils_uclient over ${name}: ${said.slice(-2000)}`);
    check(/Total lost packets 0 /.test(said), `turnutils_uclient over ${name}: ${said.slice(-2000)}`);
  }
  const relayed = Object.keys(runs).length * messages * clients * bytes;
  await until(`the record has ${relayed} bytes each way`, 10_000, async () => {
    const sessions = await server.turn('sessions');
    const sum = (key) => sessions.reduce((total, session) => total + session[key], 0);
    const [up, down] = [sum('peer_tx_bytes'), sum('peer_rx_bytes')];
    return (up === relayed && down === relayed) || new Waiting(`${up} and ${down} in ${JSON.stringify(sessions)}`);
  });
}

export const tests = {
  'Chromium and Firefox call each other through our TURN over UDP': callThroughOurs('udp'),
  'Chromium and Firefox call each other through our TURN over TCP': callThroughOurs('tcp'),
  'Chromium and Firefox call each other through our TURN over TLS': callThroughOurs('tls'),
  'Chromium and Firefox call each other through coturn, and the record knows whose relay it was': callThroughCoturn,
  "coturn's own clients pass against our TURN": coturnsClients,
  'A server that ends while it relays leaves exact sessions behind': endedWhileRelaying,
};

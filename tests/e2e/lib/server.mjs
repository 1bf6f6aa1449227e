import dgram from 'node:dgram';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { once } from 'node:events';
import { run, start, stop } from './children.mjs';
import { FANLIGHT } from './paths.mjs';
import { pause } from './wait.mjs';

/** One server process with a data folder of its own. */
export class Server {
  /** Starts it on free ports; `folder` takes data, configuration and log, `extra` is put behind the configuration. */
  static async start(folder, extra = '') {
    const server = new Server();
    server.folder = folder;
    server.dataDir = path.join(folder, 'data');
    fs.mkdirSync(server.dataDir, { recursive: true });
    const [port, tcpPort] = await freeTcpPorts(2);
    const udpPort = await freeUdpPair();
    server.port = port;
    server.tcpPort = tcpPort;
    server.config = path.join(folder, 'config.yaml');
    const rtc = `rtc:\n  udp_port: "${udpPort}-${udpPort + 1}"\n  tcp_port: ${tcpPort}\n`;
    fs.writeFileSync(server.config, rtc + extra);
    await server.#launch();
    return server;
  }

  get http() {
    return `http://127.0.0.1:${this.port}`;
  }

  get ws() {
    return `ws://127.0.0.1:${this.port}`;
  }

  /** Stops it as an operator would, and says how it ended. */
  async stop() {
    const ended = await stop(this.child);
    this.log.end();
    return ended;
  }

  /** Takes it away without a word. */
  async kill() {
    return stop(this.child, 'SIGKILL');
  }

  /** Starts it again on the same data and ports. */
  async restart() {
    this.log.end();
    await this.#launch();
  }

  /** A token from the server's own command line. */
  async token(room, identity) {
    const text = await run(FANLIGHT, ['token', 'create', '--room', room, '--identity', identity]);
    const token = text.split(/\s+/).find((word) => /^[\w-]+\.[\w-]+\.[\w-]+$/.test(word));
    if (!token) throw new Error(`no token in: ${text}`);
    return token;
  }

  /** What the record says of a room by now. */
  async report(room) {
    return JSON.parse(await this.reportText(room, '--json'));
  }

  /** The same as its operator reads it. */
  async reportText(room, ...more) {
    return run(FANLIGHT, ['report', '--room', room, '--config', this.config, '--data-dir', this.dataDir, ...more]);
  }

  /** What the command line says of TURN: `sessions`, `usage` or `live`. */
  async turn(what) {
    return JSON.parse(await run(FANLIGHT, ['turn', what, '--format', 'json', '--data-dir', this.dataDir]));
  }

  async #launch() {
    this.log = fs.createWriteStream(path.join(this.folder, 'server.log'), { flags: 'a' });
    await once(this.log, 'open');
    const args = ['--dev', '--data-dir', this.dataDir, '--port', String(this.port), '--config', this.config];
    this.child = start(FANLIGHT, args, { stdio: ['ignore', this.log, this.log], cwd: this.folder });
    this.child.ended.then((ended) => (this.ended = ended));
    this.ended = undefined;
    const deadline = Date.now() + 15_000;
    for (;;) {
      if (await answers(this.http)) return;
      if (this.ended) throw new Error(`the server ended at once: ${JSON.stringify(this.ended)}\n${this.tail()}`);
      if (Date.now() > deadline) throw new Error(`the server does not answer on ${this.http}\n${this.tail()}`);
      await pause(100);
    }
  }

  /** The last lines of its log. */
  tail() {
    const text = fs.readFileSync(path.join(this.folder, 'server.log'), 'utf8');
    return text.split('\n').slice(-15).join('\n');
  }
}

async function answers(url) {
  try {
    return (await fetch(url)).ok;
  } catch {
    return false;
  }
}

export async function freeTcpPorts(count) {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = net.createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      return server;
    }),
  );
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

/** The first of two neighbouring free ports: one for each shard of a small machine. */
async function freeUdpPair() {
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const port = await bindUdp(0);
    if (port && port < 65_535 && (await bindUdp(port + 1))) return port;
  }
  throw new Error('no two neighbouring UDP ports are free');
}

function bindUdp(port) {
  return new Promise((resolve) => {
    const socket = dgram.createSocket('udp4');
    socket.once('error', () => resolve(undefined));
    socket.bind(port, () => {
      const bound = socket.address().port;
      socket.close(() => resolve(bound));
    });
  });
}

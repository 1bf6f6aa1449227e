import readline from 'node:readline';
import fs from 'node:fs';
import path from 'node:path';
import { once } from 'node:events';
import { start, stop } from './children.mjs';
import { HERE, PYTHON } from './paths.mjs';
import { pause, until, Waiting } from './wait.mjs';

const PROGRAMS = {
  python: [PYTHON, '-u', path.join(HERE, 'peers/peer.py')],
  node: [process.execPath, path.join(HERE, 'peers/peer.mjs')],
};

/**
 * A participant in a process of its own, on LiveKit's Python or Node SDK. It publishes a tone and a colour, prints one
 * JSON value a line of what it hears and sees, and takes one JSON command a line.
 */
export class SdkPeer {
  static async start(language, folder, options) {
    const peer = new SdkPeer();
    peer.language = language;
    peer.name = options.identity;
    peer.heard = {};
    peer.data = [];
    const log = fs.createWriteStream(path.join(folder, `${language}-${options.identity}.log`), { flags: 'a' });
    await once(log, 'open');
    const [program, ...args] = PROGRAMS[language];
    peer.child = start(program, [...args, JSON.stringify(options)], { stdio: ['pipe', 'pipe', log] });
    peer.child.stdin.on('error', () => {});
    readline.createInterface({ input: peer.child.stdout }).on('line', (line) => {
      log.write(`${line}\n`);
      peer.#take(line);
    });
    peer.child.ended.then((ended) => (peer.ended = ended));
    await until(`${peer.name} (${language}) is connected and publishes`, 30_000, () => {
      if (peer.failed) throw new Error(`${peer.name}: ${peer.failed}`);
      if (peer.ended) throw new Error(`${peer.name} ended: ${JSON.stringify(peer.ended)}`);
      return peer.published ?? new Waiting('silence');
    });
    return peer;
  }

  send(command) {
    this.child.stdin.write(`${JSON.stringify(command)}\n`);
  }

  /** Has its statistics written to its log; the Node SDK has none. */
  async keepStats() {
    if (this.ended || this.language !== 'python') return;
    this.send({ do: 'stats' });
    await pause(1000);
  }

  async leave() {
    if (this.ended) return;
    this.send({ do: 'leave' });
    const gone = await Promise.race([this.child.ended, new Promise((resolve) => setTimeout(resolve, 5000))]);
    // The native library does not always let its process end.
    if (!gone) await stop(this.child, 'SIGKILL');
  }

  #take(line) {
    let message;
    try {
      message = JSON.parse(line);
    } catch {
      return;
    }
    if (message.event === 'published') this.published = true;
    if (message.event === 'failed') this.failed = message.error;
    if (message.event === 'heard') this.heard[message.from] = { ...this.heard[message.from], ...message.values };
    if (message.event === 'data') this.data.push(message.packet);
  }
}

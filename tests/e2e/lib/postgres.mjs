// A PostgreSQL server of a test's own, as Debian packages it.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { run, start, stop } from './children.mjs';
import { freeTcpPorts } from './server.mjs';
import { until } from './wait.mjs';

const USER = 'postgres';

/** Debian has a folder for each version. */
function programs() {
  const versions = fs.readdirSync('/usr/lib/postgresql').sort((a, b) => Number(b) - Number(a));
  return `/usr/lib/postgresql/${versions[0]}/bin`;
}

/** The server does not run as root. */
function asServer(program, args) {
  const command = path.join(programs(), program);
  if (process.getuid() !== 0) return [command, args];
  return ['setpriv', ['--reuid', USER, '--regid', USER, '--clear-groups', '--', command, ...args]];
}

export class Postgres {
  static async start() {
    const server = new Postgres();
    server.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fanlight-postgres-'));
    fs.chmodSync(server.folder, 0o755);
    const data = path.join(server.folder, 'data');
    fs.mkdirSync(data);
    if (process.getuid() === 0) await run('chown', [USER, data]);
    const options = { cwd: '/' };
    await run(...asServer('initdb', ['-D', data, '-U', USER, '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync']), options);
    [server.port] = await freeTcpPorts(1);
    const settings = ['-D', data, '-p', String(server.port), '-k', '', '-c', 'listen_addresses=127.0.0.1'];
    server.child = start(...asServer('postgres', settings), { ...options, stdio: 'ignore' });
    await until('PostgreSQL answers', 30_000, () => server.sql('SELECT 1').catch(() => null));
    return server;
  }

  get uri() {
    return `postgres://${USER}@127.0.0.1:${this.port}/postgres?sslmode=disable`;
  }

  /** The rows that a statement gives, as arrays of texts. */
  async sql(text) {
    const args = ['-XAtq', '-F', '\t', '-v', 'ON_ERROR_STOP=1', '-h', '127.0.0.1', '-p', String(this.port), '-U', USER, '-c', text];
    const output = await run('psql', args);
    return output.split('\n').filter(Boolean).map((line) => line.split('\t'));
  }

  async stop() {
    await stop(this.child, 'SIGINT');
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { run } from './children.mjs';
import { OUT } from './paths.mjs';

const FOLDER = path.join(OUT, 'trust');
const NAMES = [
  'DNS:localhost',
  ...Object.values(os.networkInterfaces())
    .flat()
    .map((entry) => `IP:${entry.address}`),
];
const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '7'];

let made;

/** A certificate for every address of this machine, signed by an authority that the browsers of these tests trust. */
export function certificate() {
  made ??= make();
  return made;
}

async function make() {
  fs.rmSync(FOLDER, { recursive: true, force: true });
  fs.mkdirSync(FOLDER, { recursive: true });
  const file = (name) => path.join(FOLDER, name);
  const [authority, authorityKey, cert, key] = ['ca.pem', 'ca.key', 'cert.pem', 'cert.key'].map(file);
  const request = (...args) => run('openssl', ['req', '-x509', ...KEY, ...args]);
  await request('-subj', '/CN=Fanlight test authority', '-keyout', authorityKey, '-out', authority);
  await request(
    ...['-subj', '/CN=Fanlight test', '-keyout', key, '-out', cert, '-CA', authority, '-CAkey', authorityKey],
    ...['-addext', `subjectAltName=${NAMES.join(',')}`, '-addext', 'basicConstraints=critical,CA:FALSE'],
  );
  return { authority, cert, key };
}

/** A home folder whose certificate database trusts our authority. */
export async function trustForChromium() {
  const home = path.join(FOLDER, 'home');
  await trusting(home, '.pki/nssdb');
  return home;
}

/** A profile whose certificate database trusts our authority. */
export async function trustForFirefox() {
  const profile = path.join(FOLDER, 'firefox');
  await trusting(profile, '');
  return profile;
}

async function trusting(folder, below) {
  const { authority } = await certificate();
  const database = path.join(folder, below);
  fs.mkdirSync(database, { recursive: true });
  await run('certutil', ['-N', '-d', `sql:${database}`, '--empty-password']);
  await run('certutil', ['-A', '-d', `sql:${database}`, '-n', 'fanlight-test', '-t', 'C,,', '-i', authority]);
}

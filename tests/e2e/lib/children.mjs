import { spawn } from 'node:child_process';

const running = new Set();

/** Starts a child that does not outlive this process. */
export function start(program, args, options) {
  const child = spawn(program, args, options);
  running.add(child);
  child.ended = new Promise((resolve) => {
    child.once('error', (error) => resolve({ error }));
    child.once('close', (code, signal) => resolve({ code, signal }));
  });
  child.ended.then(() => running.delete(child));
  return child;
}

/** Ends a child: asks, and insists after a while. Returns how it ended. */
export async function stop(child, signal = 'SIGTERM', graceMs = 8000) {
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
  const ended = await child.ended;
  clearTimeout(timer);
  return ended;
}

/** Runs a program to its end, within `limitMs`, and gives its standard output. */
export async function run(program, args, { limitMs = 30_000, ...options } = {}) {
  const child = start(program, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  const out = [];
  const err = [];
  child.stdout.on('data', (part) => out.push(part));
  child.stderr.on('data', (part) => err.push(part));
  const timer = setTimeout(() => child.kill('SIGKILL'), limitMs);
  const { code, signal, error } = await child.ended;
  clearTimeout(timer);
  if (code !== 0) {
    throw new Error(`${program} ${args.join(' ')}: ${error ?? signal ?? code}\n${Buffer.concat(err)}`);
  }
  return Buffer.concat(out).toString();
}

function killAll() {
  for (const child of running) child.kill('SIGKILL');
}

process.once('exit', killAll);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(signal, () => {
    killAll();
    process.exit(1);
  });
}

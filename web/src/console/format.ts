/** `512 B`, `59.5 kB`, `1.04 GB`: three digits, cut, in powers of ten, as the command line has it. */
export function size(bytes: number): string {
  for (const [unit, name] of [
    [1e9, 'GB'],
    [1e6, 'MB'],
    [1e3, 'kB'],
  ] as const) {
    if (bytes < unit) continue;
    const whole = Math.floor(bytes / unit);
    const hundredths = Math.floor(((bytes % unit) * 100) / unit);
    if (whole < 10) return `${whole}.${String(hundredths).padStart(2, '0')} ${name}`;
    if (whole < 100) return `${whole}.${Math.floor(hundredths / 10)} ${name}`;
    return `${whole} ${name}`;
  }
  return `${bytes} B`;
}

/** `8.9 s`, `1 m 01 s`, `26 h 00 m 05 s`. */
export function duration(ms: number): string {
  const seconds = Math.floor(ms / 1000) % 60;
  const minutes = Math.floor(ms / 60_000) % 60;
  const hours = Math.floor(ms / 3_600_000);
  const two = (number: number): string => String(number).padStart(2, '0');
  if (hours) return `${hours} h ${two(minutes)} m ${two(seconds)} s`;
  if (minutes) return `${minutes} m ${two(seconds)} s`;
  return `${seconds}.${Math.floor((ms % 1000) / 100)} s`;
}

/** Minutes with one decimal, for bills. */
export function minutes(ms: number): string {
  return (ms / 60_000).toFixed(1);
}

export function rate(bps: number): string {
  if (bps >= 1e6) return `${(bps / 1e6).toFixed(1)} Mbit/s`;
  return `${Math.round(bps / 1e3)} kbit/s`;
}

export function money(amount: number): string {
  return amount.toFixed(2);
}

/** `2026-11-21 14:03:07`, UTC. */
export function time(iso: string): string {
  return iso.slice(0, 19).replace('T', ' ');
}

/** Today's day in UTC, or so many days before it. */
export function day(ago = 0): string {
  return new Date(Date.now() - ago * 86_400_000).toISOString().slice(0, 10);
}

/** The day after one, for a limit that is not included. */
export function after(date: string): string {
  return new Date(Date.parse(`${date}T00:00:00Z`) + 86_400_000).toISOString().slice(0, 10);
}

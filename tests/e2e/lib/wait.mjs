/** Until `probe` gives something truthy; throws with the last answer when it takes too long. */
export async function until(what, timeoutMs, probe) {
  const deadline = Date.now() + timeoutMs;
  let last;
  while (Date.now() < deadline) {
    last = await probe();
    if (last && !(last instanceof Waiting)) return last;
    await pause(250);
  }
  const seen = last instanceof Waiting ? last.why : JSON.stringify(last);
  throw new Error(`not within ${timeoutMs} ms: ${what}; last seen: ${seen}`);
}

/** Not yet, and what is missing: the answer of a probe that explains itself. */
export class Waiting {
  constructor(why) {
    this.why = why;
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function check(condition, message) {
  if (!condition) throw new Error(message);
}

/** Whether two counts differ by at most this share of the larger one. */
export const within = (a, b, share) => Math.abs(a - b) <= share * Math.max(a, b);

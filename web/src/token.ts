/** Where to connect, and as whom. */
export interface Access {
  url: string;
  token: string;
}

/** This server hands out no tokens: it does not run with `--dev`, or we are not on its own machine. */
export class NoTokens extends Error {}

/** Asks the server for a token; it only gives one in development, on its own machine. */
export async function requestAccess(room: string, name: string): Promise<Access> {
  const response = await fetch('/meet/token', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ room, name }),
  });
  if (response.status === 404 || response.status === 405) throw new NoTokens();
  if (!response.ok) throw new Error((await response.text()) || `The server answered ${response.status}.`);
  const answer = (await response.json()) as { token: string; url?: string };
  return { token: answer.token, url: answer.url ?? ownUrl() };
}

/** The signalling address of the server that this page came from. */
export function ownUrl(): string {
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}`;
}

/** The room that a token is for, or an empty text when it cannot be read. */
export function roomOfToken(token: string): string {
  try {
    const payload = token.split('.')[1] ?? '';
    const bytes = Uint8Array.from(atob(payload.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes)) as { video?: { room?: string } };
    return claims.video?.room ?? '';
  } catch {
    return '';
  }
}

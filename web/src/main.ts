import './style.css';
import { Call } from './call';
import { byId } from './dom';
import { Lobby, type Entry } from './lobby';
import { readSettings, rememberName, roomLink } from './settings';
import { NoTokens, ownUrl, requestAccess, roomOfToken, type Access } from './token';
import type { Room } from 'livekit-client';

declare global {
  interface Window {
    /** For tests and for looking around in the console. */
    fanlight: { room: Room | undefined };
  }
}

const settings = readSettings();
const lobby = new Lobby(settings);
window.fanlight = { room: undefined };

/** From the lobby into the call; what goes wrong is said in the lobby. */
async function join(entry: Entry): Promise<void> {
  lobby.setBusy(true);
  try {
    const access = await accessFor(entry);
    if (!access) return;
    const room = roomOfToken(access.token) || entry.room;
    rememberName(entry.name);
    const call = new Call(settings, onLeft);
    window.fanlight.room = call.room;
    await call.connect(access);
    history.replaceState(null, '', roomLink(room));
    show('call');
    call.enter(room, lobby.takeTracks());
  } catch (error) {
    lobby.fail(explain(error));
  } finally {
    lobby.setBusy(false);
  }
}

async function accessFor(entry: Entry): Promise<Access | undefined> {
  if (entry.token) return { token: entry.token, url: ownUrl() };
  try {
    return await requestAccess(entry.room, entry.name);
  } catch (error) {
    if (!(error instanceof NoTokens)) throw error;
    lobby.askForToken();
    return undefined;
  }
}

function onLeft(message: string): void {
  show('lobby');
  void lobby.open(message);
}

function show(view: 'lobby' | 'call'): void {
  byId('lobby', HTMLElement).hidden = view !== 'lobby';
  byId('call', HTMLElement).hidden = view !== 'call';
  document.body.dataset.view = view;
}

function explain(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return `Could not join: ${text || 'unknown error'}`;
}

show('lobby');
lobby.onJoin = (entry) => void join(entry);
void lobby.open('').then(() => {
  if (settings.autojoin) lobby.submit();
});

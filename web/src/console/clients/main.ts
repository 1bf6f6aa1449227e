import '../console.css';
import './clients.css';
import { byId } from '../../dom';
import { bindToken, complain, openView, say, showScope } from '../shell';
import { bindList, loadList, narrowList } from './list';
import { bindOne, loadOne } from './one';

const EVERY_MS = 10_000;

/** The number of one connection, or nothing for the list. */
const client = /^\/console\/clients\/(\d+)$/.exec(location.pathname)?.[1];
/** Answers to older questions are not wanted any more. */
let wanted = new AbortController();

byId('list', HTMLDivElement).hidden = client !== undefined;
byId('one', HTMLDivElement).hidden = client === undefined;
bindToken(start);
bindList(() => void load());
bindOne(() => void load());
document.addEventListener('visibilitychange', refresh);
setInterval(refresh, EVERY_MS);
void start();

async function start(): Promise<void> {
  narrowList(showScope());
  await load();
}

function refresh(): void {
  if (!document.hidden && !byId('view', HTMLElement).hidden) void load();
}

async function load(): Promise<void> {
  wanted.abort();
  wanted = new AbortController();
  const { signal } = wanted;
  try {
    await (client === undefined ? loadList(signal) : loadOne(client, signal));
    openView(true);
    say('');
  } catch (error) {
    if (!signal.aborted) complain(error);
  }
}

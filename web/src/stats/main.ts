// `fanlight-stats.js` for pages that load it with a script element: `FanlightStats.start({ token })`.
export { start } from './stats';

import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const HERE = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
export const ROOT = path.resolve(HERE, '../..');
/** Logs and pictures of the last run. */
export const OUT = process.env.FANLIGHT_E2E_OUT ?? path.join(ROOT, 'target/e2e');
export const PYTHON = path.join(ROOT, '.test-env/python/bin/python');
/** The program under test; another one may stand in. */
export const FANLIGHT = process.env.FANLIGHT_BIN ?? path.join(ROOT, 'target/release/fanlight');

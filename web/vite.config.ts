import { readFileSync } from 'node:fs';
import { defineConfig, type Plugin, type UserConfig } from 'vite';

const common: UserConfig['build'] = {
  target: 'es2022',
  // The server forbids inline sources; every asset is a file of its own.
  assetsInlineLimit: 0,
  // livekit-client alone is larger than the default limit.
  chunkSizeWarningLimit: 1200,
  modulePreload: { polyfill: false },
};

const server = { proxy: { '/meet/token': 'http://127.0.0.1:7880', '/api': 'http://127.0.0.1:7880' } };

/** Puts the console's frame where a page says `<!-- frame -->`, with the page's title in it. */
const frame: Plugin = {
  name: 'frame',
  transformIndexHtml: {
    order: 'pre',
    handler(page) {
      const title = /<title>(.*) · Fanlight<\/title>/.exec(page)?.[1];
      if (!title) throw new Error('a page of the console needs a title that ends with “ · Fanlight”');
      const around = readFileSync(new URL('src/console/frame.html', import.meta.url), 'utf8')
        .replace('<h1 id="title"></h1>', `<h1 id="title">${title}</h1>`)
        .replace(`>${title}</a>`, ` aria-current="page">${title}</a>`);
      return page.replace('<!-- frame -->', () => around);
    },
  },
};

/** Three things with a place of their own each: `vite build` makes /meet, the modes `console` and `stats` /console and the snippet. */
export default defineConfig(({ mode }): UserConfig => {
  switch (mode) {
    case 'console':
      return {
        base: '/console/',
        plugins: [frame],
        build: { ...common, outDir: 'dist/console', rollupOptions: { input: ['console.html', 'clients.html'] } },
        server,
      };
    case 'stats':
      return {
        publicDir: false,
        build: {
          ...common,
          outDir: 'dist/stats',
          lib: { entry: 'src/stats/main.ts', name: 'FanlightStats', formats: ['iife'], fileName: () => 'fanlight-stats.js' },
        },
      };
    default:
      return { base: '/meet/', build: { ...common, outDir: 'dist' }, server };
  }
});

import { defineConfig, type UserConfig } from 'vite';

const common: UserConfig['build'] = {
  target: 'es2022',
  // The server forbids inline sources; every asset is a file of its own.
  assetsInlineLimit: 0,
  // livekit-client alone is larger than the default limit.
  chunkSizeWarningLimit: 1200,
  modulePreload: { polyfill: false },
};

const server = { proxy: { '/meet/token': 'http://127.0.0.1:7880', '/api': 'http://127.0.0.1:7880' } };

/** Three things with a place of their own each: `vite build` makes /meet, the modes `console` and `stats` /console and the snippet. */
export default defineConfig(({ mode }): UserConfig => {
  switch (mode) {
    case 'console':
      return {
        base: '/console/',
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

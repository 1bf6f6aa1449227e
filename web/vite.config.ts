import { defineConfig } from 'vite';

export default defineConfig({
  base: '/meet/',
  build: {
    target: 'es2022',
    // The server forbids inline sources; every asset is a file of its own.
    assetsInlineLimit: 0,
    // livekit-client alone is larger than the default limit.
    chunkSizeWarningLimit: 1200,
  },
  server: { proxy: { '/meet/token': 'http://127.0.0.1:7880' } },
});

// A hub on Bun: one process, its own HTTP and WebSocket server, its own publish to topics.
//
// A room is a topic: Bun sends a state to its subscribers in native code. Bun pings sockets that are
// silent by itself. Its timers count in steps of 4 s, so that it pings every 24 s where the hub pings
// every 25 s, and every 4 s instead of 5 s. room.mjs says what the peers do and what they leave out. A
// new socket gets the state of its own join twice, in its welcome and by the topic. A slow reader has
// Bun's limits. The listen backlog is Bun's too: it cannot be set.

import { MAX_MESSAGE, Rooms, SUBPROTOCOL, checkJoin, receive, seconds } from './room.mjs';

const name = `Bun ${Bun.version}`;
if (process.argv.includes('--version')) {
  console.log(name);
  process.exit();
}

const rooms = new Rooms((room, _, text) => server.publish(room.name, text));

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  routes: {
    '/rooms/:room/socket': (request, server) => {
      const { searchParams } = new URL(request.url);
      const join = checkJoin(request.params.room, searchParams);
      if (join === undefined) return new Response(null, { status: 400 });
      const offered = request.headers.get('sec-websocket-protocol')?.split(/,\s*/) ?? [];
      const headers = offered.includes(SUBPROTOCOL) ? { 'sec-websocket-protocol': SUBPROTOCOL } : undefined;
      if (server.upgrade(request, { data: join, headers })) return undefined;
      return new Response(null, { status: 426 });
    },
  },
  fetch: () => new Response(null, { status: 404 }),
  websocket: {
    perMessageDeflate: false,
    maxPayloadLength: MAX_MESSAGE,
    idleTimeout: idleTimeout(seconds(process.env.PING_INTERVAL)),
    open(socket) {
      const room = rooms.join(socket.data);
      socket.data.room = room;
      socket.send(room.welcome(crypto.randomUUID(), socket.data.visitor));
      socket.subscribe(room.name);
    },
    message(socket, text) {
      if (typeof text !== 'string') return socket.close(1003);
      const error = receive(socket.data.room, socket.data.visitor, text);
      if (error !== undefined) socket.send(error);
    },
    close(socket) {
      rooms.leave(socket.data.room, socket.data.visitor);
    },
  },
});
console.log(`${name} listens at http://127.0.0.1:${server.port}/`);

/**
 * The idle timeout with which Bun pings at least every `interval` seconds. It pings a margin before the
 * timeout: 4 s, or 8 s from a timeout of 16 s on, or 16 s from 32 s on.
 */
function idleTimeout(interval) {
  const steps = Math.max(Math.floor(interval / 4), 1) * 4;
  const margin = steps >= 16 ? 16 : steps >= 8 ? 8 : 4;
  return steps + margin;
}

// A hub on Node.js with the package `ws`: one process, one thread, as its documentation shows.
//
// A broadcast is a loop over the room's sockets with one buffer that is encoded once; permessage-deflate
// is off. Sockets are pinged every PING_INTERVAL and closed when the pong is missing, as in the package's
// README. room.mjs says what the peers do and what they leave out. A slow reader has no limit of its
// own: what its socket does not take waits in memory.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { WebSocket, WebSocketServer } from 'ws';
import { MAX_MESSAGE, Rooms, SUBPROTOCOL, checkJoin, receive, seconds } from './room.mjs';

const { version } = JSON.parse(readFileSync(new URL('node_modules/ws/package.json', import.meta.url)));
const name = `ws ${version} on Node.js ${process.versions.node}`;
if (process.argv.includes('--version')) {
  console.log(name);
  process.exit();
}

/** The sockets of each room. */
const members = new WeakMap();
const rooms = new Rooms((room, seq, text) => {
  const state = Buffer.from(text);
  for (const socket of members.get(room)) {
    // A new socket has this state already, in its welcome.
    if (socket.seq < seq && socket.readyState === WebSocket.OPEN) {
      socket.seq = seq;
      socket.send(state, { binary: false });
    }
  }
});

const server = createServer((_, response) => response.writeHead(426).end());
const sockets = new WebSocketServer({
  noServer: true,
  perMessageDeflate: false,
  maxPayload: MAX_MESSAGE,
  handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
});

server.on('upgrade', (request, stream, head) => {
  const { pathname, searchParams } = new URL(request.url, 'http://hub');
  const room = /^\/rooms\/([^/]+)\/socket$/.exec(pathname)?.[1];
  const join = room === undefined ? undefined : checkJoin(room, searchParams);
  if (join === undefined) {
    stream.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
    return;
  }
  sockets.handleUpgrade(request, stream, head, (socket) => open(socket, join));
});

function open(socket, join) {
  const room = rooms.join(join);
  socket.room = room;
  socket.visitor = join.visitor;
  socket.seq = room.seq;
  socket.isAlive = true;
  if (!members.has(room)) members.set(room, new Set());
  members.get(room).add(socket);
  socket.on('message', onMessage);
  socket.on('pong', onPong);
  socket.on('close', onClose);
  socket.on('error', () => {}); // `close` follows
  socket.send(room.welcome(crypto.randomUUID(), join.visitor));
}

function onMessage(data, isBinary) {
  if (isBinary) return this.close(1003);
  const error = receive(this.room, this.visitor, data.toString());
  if (error !== undefined) this.send(error);
}

function onPong() {
  this.isAlive = true;
}

function onClose() {
  members.get(this.room).delete(this);
  rooms.leave(this.room, this.visitor);
}

setInterval(() => {
  for (const socket of sockets.clients) {
    if (!socket.isAlive) {
      socket.terminate();
      continue;
    }
    socket.isAlive = false;
    socket.ping();
  }
}, seconds(process.env.PING_INTERVAL) * 1000);

// Thousands connect at once in the scenario storm: the default backlog of 511 would drop many of them.
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
  console.log(`${name} listens at http://127.0.0.1:${server.address().port}/`);
});

/** Browser client of the breathing-room hub. A visitor is present while the socket is open. */

import type { JoinOptions, Room } from "./api.js";
import { createRoom } from "./room.js";

export type * from "./api.js";

/** Joins a room and reconnects automatically until `leave()`. Throws a TypeError for a bad room or visitor. */
export function joinRoom(options: JoinOptions): Room {
  return createRoom(options);
}

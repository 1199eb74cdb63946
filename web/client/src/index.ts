/** The browser client of the breathing-room hub: presence is the open socket. */

import type { JoinOptions, Room } from "./api.js";
import { RoomHandle } from "./room.js";

export type * from "./api.js";

/** Joins a room, and stays in it until `leave()`, through whatever happens to the connection. */
export function joinRoom(options: JoinOptions): Room {
  return new RoomHandle(options);
}

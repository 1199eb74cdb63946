/** Browser client of the breathing-room hub. A visitor is present while the socket is open. */

export type * from "./api.js";
export { joinRoom } from "./room.js";

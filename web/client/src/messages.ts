/** Types of the hub's messages, as far as this library reads them. */

export type HubMessage = Welcome | Presence | Ack | Pong | Keepalive | SitMessage | OwnSit | OwnMood | ErrorMessage;

interface Counts {
  present: number;
  moods: Record<string, number>;
}

export interface Welcome extends Counts {
  type: "welcome";
  visitor: string;
  vocabulary: string[];
  serverTime: number;
  /** Missing at hubs that know neither pings nor sits. */
  pingAfterMs?: number;
  /** The end of the visitor's running sit. */
  sit?: number;
  /** Missing at hubs without `own-mood`. */
  mood?: string | null;
}

interface Presence extends Counts {
  type: "presence";
}

interface Ack {
  type: "ack";
  upTo: number;
}

interface Pong {
  type: "pong";
  serverTime: number;
}

/** Comes with the hub's pings, which a page does not see. */
interface Keepalive {
  type: "keepalive";
}

interface SitMessage {
  type: "sit";
  until: number | null;
}

interface OwnSit {
  type: "own-sit";
  until: number | null;
}

interface OwnMood {
  type: "own-mood";
  mood: string | null;
}

export interface ErrorMessage {
  type: "error";
  code: string;
  message: string;
  ref?: number;
}

/** What the hub says on a socket, as types: the part of the protocol that this library reads. */

export type FromHub = Welcome | Presence | Ack | Refusal;

interface Counts {
  present: number;
  moods: Record<string, number>;
}

interface Welcome extends Counts {
  type: "welcome";
  visitor: string;
  vocabulary: string[];
}

interface Presence extends Counts {
  type: "presence";
}

interface Ack {
  type: "ack";
  upTo: number;
}

export interface Refusal {
  type: "error";
  code: string;
  message: string;
  ref?: number;
}

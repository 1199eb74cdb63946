/** Types of the hub's messages, as far as this library reads them. */

export type HubMessage = Welcome | Presence | Ack | ErrorMessage;

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

export interface ErrorMessage {
  type: "error";
  code: string;
  message: string;
  ref?: number;
}

// The texts of the room page, as pure functions of its state.

import type { RoomState } from "@breathing-room/client";
import { byCount } from "../moods";

/** The caption below the count. */
export function presentText(present: number): string {
  return present === 1 ? "only you, for now" : "people breathing together";
}

export interface Connection {
  state: RoomState;
  online: boolean;
  /** The room was open before, so this is a reconnect. */
  wasOpen: boolean;
  /** The code of the hub's refusal since the room was last open. */
  refusal?: string | undefined;
  /** The page has a token of a personal link. */
  hasToken?: boolean;
  /** Age of the shown counts in ms. */
  age?: number;
}

/** The connection in one line. */
export function stateText({ state, online, wasOpen, refusal, hasToken = false, age = 0 }: Connection): string {
  if (state === "open") return "You are here.";
  if (state === "checking") return `Checking the connection. These numbers are ${ageText(age)} old.`;
  const refused = refusal === undefined ? undefined : refusalText(refusal, hasToken);
  if (state === "closed") return refused ?? "You could not join this room. Reload to try again.";
  if (!online) return "You are offline. You will be back when the network is.";
  if (refused) return refused;
  if (state === "connecting" && !wasOpen) return "Joining…";
  return "Connection lost. Reconnecting…";
}

/**
 * Why the hub refused the visitor and what to do, by the error's code; undefined if it was no refusal: it refused only a
 * message or an event, or the code is the client's.
 */
export function refusalText(code: string, hasToken: boolean): string | undefined {
  switch (code) {
    case "unauthorized":
      return hasToken
        ? "The hub does not accept your link any more. Ask your host for a new one."
        : "This room opens with a personal link only. Ask your host for one.";
    case "token-expired":
      return "Your link has ended. Ask your host for a new one.";
    case "forbidden-origin":
      return "This hub does not accept visitors from this address. Its operator can allow it in ALLOWED_ORIGINS.";
    case "bad-room":
      return "There is no such room. A room's name has lower case letters, digits and hyphens, at most 64.";
    case "rate-limit":
      return "This page sent too much at once. Reload to try again.";
    case "kicked":
    case "banned":
      return "Your host has removed you from this room.";
    case "too-many-rooms":
      return "You are in too many rooms at once: close another one. Trying again in a while…";
    case "too-many":
      return "Too many people are here from your network. Trying again in a while…";
    case "too-fast":
      return "Too many attempts from your network. Trying again in a while…";
    case "full":
      return "The hub is full. Trying again in a while…";
    case "restarting":
      return "The hub restarts. Trying again in a moment…";
    case "overloaded":
      return "The hub is busy. Trying again in a while…";
    case "internal":
      return "The hub made a mistake, which its log has. Trying again in a while…";
    case "bad-host":
    case "bad-parameter":
    case "bad-upgrade":
    case "bad-visitor":
    case "upgrade-required":
      return "The hub cannot read this page's request. A proxy in front of it may have changed it: tell its operator.";
    default:
      return undefined;
  }
}

/** An age in words. */
export function ageText(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return seconds === 1 ? "1 second" : `${seconds} seconds`;
  return `${Math.round(seconds / 60)} minutes`;
}

/** The room in one sentence, for screen readers. */
export function roomSentence(present: number, moods: Readonly<Record<string, number>>): string {
  const people = present === 1 ? "You are the only one here" : `${present} people breathe here`;
  const named = byCount(moods).map(([mood, count]) => `${count} ${mood}`);
  return named.length > 0 ? `${people}: ${named.join(", ")}.` : `${people}.`;
}

/** The visitor's own mood, for screen readers. */
export function moodSentence(mood: string | null): string {
  return mood === null ? "You share no mood." : `Your mood is ${mood}.`;
}

/** The clocks of a hub and a page differ by less than this (ms): 20 minutes and 5 ms are not 21 minutes. */
const CLOCK_ERROR = 1_000;

/** The remaining time of a sit, in whole minutes. */
export function remainingText(ms: number): string {
  const minutes = Math.ceil((ms - CLOCK_ERROR) / 60_000);
  if (minutes > 1) return `Sitting, ${minutes} minutes left`;
  return ms > 0 ? "Sitting, the last minute" : "The sit has ended";
}

export interface Sitting {
  state: RoomState;
  sitting: boolean;
  /** The hub has confirmed the sit. */
  confirmed: boolean;
  /** The screen is kept on. */
  awake: boolean;
  bell: boolean;
}

/** What happens when the phone locks during a sit. Nothing is promised until the hub has confirmed the sit. */
export function lockText({ state, sitting, confirmed, awake, bell }: Sitting): string {
  const stay = "f your phone locks, you stay in the room until the sit ends";
  if (!sitting) return state === "closed" ? "You are not in the room: a sit needs it." : `I${stay}. Without a sit you leave it.`;
  const screen = awake ? "The screen stays on. " : "";
  const joined = state === "open" || state === "checking";
  if (!confirmed) {
    return `${screen}${joined ? "Waiting for the hub" : "Not connected"}: your place is not held yet. Keep this page open.`;
  }
  if (!joined) return `${screen}Not connected, but your place is held until the sit ends.`;
  return `${screen}Your place is held: i${stay}${bell ? ", but the bell may be silent" : ""}.`;
}

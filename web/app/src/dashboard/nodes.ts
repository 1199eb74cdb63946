// The nodes of a cluster: how many of them the counts have, and with the admin token a table of them.

import { adminToken, authHeaders } from "../admin-token";
import { element, h } from "../dom";
import { hub } from "../hub";
import { age, count, plural } from "./format";
import { pollWhileVisible } from "./poll";

/** The nodes that the counts are of, and those that are missing. */
export interface NodeCounts {
  nodes: number;
  silent: number;
}

/** A node, as another one sees it. */
export interface ClusterNode {
  name: string;
  isSelf: boolean;
  state: "live" | "syncing" | "silent" | "lost" | "left";
  version: string;
  since: number;
  people: number;
  sockets: number;
  heardMs: number;
  lagMs: number;
  /** How far it has the log of events; null without one. */
  log: { position: number; lagMs: number; outbox: number } | null;
  /** Whether its file has other records than that of the node that answers, at the same position of the log. */
  differs: boolean;
}

/** What an operator should know about the nodes, and a command to run. */
export interface NodeNote {
  text: string;
  command?: string;
}

/** The log of events, as the node that answers sees it. */
export interface Log {
  /** Why it cannot be used; null while it works. */
  error: string | null;
}

const INTERVAL = 5_000; // ms
const COLUMNS = ["Node", "State", "Version", "Running for", "People", "Sockets", "Last heard", "Lag", "Log lag", "Outbox"];

/** A count of people, which is a lower bound while a node is missing. */
export function atLeast(people: number, cluster?: NodeCounts): string {
  return cluster && cluster.silent > 0 ? `at least ${count(people)}` : count(people);
}

/** The missing nodes after a count; empty without any. */
export function silentText(cluster?: NodeCounts): string {
  return cluster && cluster.silent > 0 ? `, ${plural(cluster.silent, "node", "nodes")} silent` : "";
}

/** The cells of a node's row. */
export function nodeCells(node: ClusterNode, now: number): string[] {
  const heard = node.isSelf ? "this node" : `${age(node.heardMs)} ago`;
  const lag = node.isSelf ? "–" : `${count(node.lagMs)} ms`;
  const running = age(now - node.since);
  const log = node.log ? [`${count(node.log.lagMs)} ms`, count(node.log.outbox)] : ["–", "–"];
  const state = node.differs ? `${node.state}, other history` : node.state;
  return [node.name, state, node.version, running, count(node.people), count(node.sockets), heard, lag, ...log];
}

/** The notes above the table. `address` is that of the node that answers. */
export function nodeNotes(nodes: ClusterNode[], log: Log | null, address: string): NodeNote[] {
  const different = nodes.filter((node) => node.differs).map(({ name }) => ({
    text: `The history of ${name} differs from that of this node. To see in which months, run on ${name}:`,
    command: `breathing-room check --with ${address}`,
  }));
  const away = "This node does not share events with the others. They wait in its outbox:";
  return log?.error ? [{ text: `${away} ${log.error}.` }, ...different] : different;
}

let isPolling = false;

/** Shows the table from now on, if this is a cluster. */
export function showNodes(cluster?: NodeCounts): void {
  if (!cluster || isPolling) return;
  isPolling = true;
  pollWhileVisible(INTERVAL, refresh);
}

async function refresh(): Promise<void> {
  if (adminToken() === null) return;
  try {
    const response = await fetch(`${hub()}/cluster`, { headers: authHeaders() });
    if (!response.ok) return;
    const status = (await response.json()) as { nodes: ClusterNode[]; log: Log | null; timestamp: number };
    const { nodes, log, timestamp } = status;
    const row = (node: ClusterNode): HTMLElement => {
      const [name = "", ...cells] = nodeCells(node, timestamp);
      return h("tr", {}, h("th", { scope: "row" }, name), ...cells.map((text) => h("td", {}, text)));
    };
    const head = h("tr", {}, ...COLUMNS.map((text) => h("th", { scope: "col" }, text)));
    const table = h("table", {}, h("caption", {}, "Nodes"), h("thead", {}, head), h("tbody", {}, ...nodes.map(row)));
    const notes = nodeNotes(nodes, log, hub()).map(({ text, command }) =>
      h("p", {}, `${text} `, ...(command ? [h("code", {}, command)] : [])),
    );
    element("nodes").replaceChildren(...notes, table);
    element("nodes").hidden = nodes.length === 0;
  } catch {
    // The live activity shows that the hub cannot be reached.
  }
}

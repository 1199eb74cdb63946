//! A transport in memory, for simulations: it loses, delays, repeats, reorders and cuts off, as a policy says.
//!
//! All nodes of a network are in one process. Everything is deterministic where the policy is, since a message is sent at
//! once, or by a timer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::config::Config;
use super::transport::{Connect, NoAnswer, NodeMessage, Sent, Transport};
use crate::sync::lock;

/// Says when a message from one node to another arrives: once after each of the delays. None of them is a lost message.
pub type Policy = Box<dyn FnMut(&str, &str) -> Vec<Duration> + Send>;

/// A network of nodes. Clones share it.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Inner>>);

struct Inner {
    policy: Policy,
    /// The nodes of each name, of which there is more than one only by mistake.
    nodes: BTreeMap<String, Vec<mpsc::Sender<NodeMessage>>>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl Network {
    /// A network without nodes.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(Mutex::new(Inner { policy, nodes: BTreeMap::new() })))
    }

    /// The settings of a node of this network.
    #[must_use]
    pub fn config(&self) -> Config {
        let network = self.clone();
        let open = move |node: &str, incoming: mpsc::Sender<NodeMessage>| -> Arc<dyn Transport> {
            let mut inner = lock(&network.0);
            let namesakes = inner.nodes.entry(node.to_owned()).or_default();
            namesakes.retain(|namesake| !namesake.is_closed());
            namesakes.push(incoming);
            drop(inner);
            Arc::new(Port { network: network.clone(), node: node.to_owned() })
        };
        Config { connect: Some(Connect(Arc::new(open))), ..Config::default() }
    }

    /// Removes the nodes of this name: they send and receive nothing from now on.
    pub fn remove(&self, node: &str) {
        lock(&self.0).nodes.remove(node);
    }

    fn deliver(&self, from: &str, to: &str, message: &Bytes) {
        let mut inner = lock(&self.0);
        let namesakes = inner.nodes.get(to).cloned().unwrap_or_default();
        for delay in (inner.policy)(from, to) {
            for incoming in &namesakes {
                let message = NodeMessage::Published(message.clone());
                if delay.is_zero() {
                    let _ = incoming.try_send(message); // a full queue loses it
                } else {
                    let incoming = incoming.clone();
                    tokio::spawn(async move {
                        sleep(delay).await;
                        let _ = incoming.try_send(message);
                    });
                }
            }
        }
    }
}

/// One node's place in a network.
#[derive(Debug)]
struct Port {
    network: Network,
    node: String,
}

impl Transport for Port {
    fn publish(&self, message: Bytes) -> Sent {
        let nodes: Vec<String> = {
            let inner = lock(&self.network.0);
            if !inner.nodes.contains_key(&self.node) {
                return Sent::Dropped;
            }
            inner.nodes.keys().cloned().collect()
        };
        for to in nodes {
            self.network.deliver(&self.node, &to, &message);
        }
        Sent::Queued
    }

    fn request(
        &self,
        node: &str,
        message: Bytes,
        longest: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NoAnswer>> {
        let mut inner = lock(&self.network.0);
        let is_lost = (inner.policy)(&self.node, node).is_empty();
        let incoming = inner.nodes.get(node).and_then(|nodes| nodes.first()).cloned().filter(|_| !is_lost);
        async move {
            let incoming = incoming.ok_or(NoAnswer::Unreachable)?;
            let (answer, answered) = oneshot::channel();
            incoming.try_send(NodeMessage::Request(message, answer)).map_err(|_| NoAnswer::Unreachable)?;
            let answer = timeout(longest, answered).await.map_err(|_| NoAnswer::TimedOut)?;
            answer.map_err(|_| NoAnswer::TimedOut)
        }
        .boxed()
    }

    fn reconnect(&self) {}

    fn flush(&self) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }
}

//! Honest HTTP clients beside the honest members: one requests `/health`, others send durable posts.
//!
//! Each request has its own connection and thread and starts when it is due, so that a slow response does not
//! hide the next one. The time covers connect, request and response to its end. Other results than a 200 are
//! recorded too.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use uuid::Uuid;

use super::tokens::{token, with_token};
use crate::Outcome;
use crate::figure::millis;

const HEALTH: Duration = Duration::from_secs(1);
const DURABLE: Duration = Duration::from_millis(500);

/// The number of source addresses of the posts.
const ADDRESSES: usize = 100;

/// The longest wait for a response.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The result of a request.
pub(super) struct Reply {
    /// The id of the posted event; nil for `/health`.
    pub(super) id: Uuid,
    pub(super) millis: f64,
    /// The status, or the error of the connection.
    pub(super) result: Result<u16, String>,
    /// The body, unless the status is 200.
    pub(super) body: String,
}

impl Reply {
    pub(super) fn is_ok(&self) -> bool {
        self.result == Ok(200)
    }
}

/// Clients that send requests until this is dropped.
pub(super) struct Clients {
    replies: Receiver<Reply>,
    stop: Sender<()>,
}

impl Clients {
    /// Requests `/health` once a second.
    pub(super) fn health(server: SocketAddr) -> Self {
        Self::start(HEALTH, move |_| {
            let request = "GET /health HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n";
            (Uuid::nil(), send(server, [127, 3, 0, 1], request))
        })
    }

    /// Sends two durable posts a second, each with one page view.
    pub(super) fn durable_posts(server: SocketAddr) -> Self {
        Self::start(DURABLE, move |number| {
            let (id, client) = (Uuid::new_v4(), number % ADDRESSES);
            let visitor = format!("durable-{client}");
            let body = format!(r#"{{"id":"{id}","path":"/durable","visitor":"{visitor}","room":"room-0"}}"#);
            let head = format!(
                "POST /page-view?durable=true HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let last = u8::try_from(client + 1).unwrap_or(u8::MAX);
            (id, send(server, [127, 3, 1, last], &(with_token(&head, &token(&visitor)) + &body)))
        })
    }

    fn start(
        every: Duration,
        job: impl Fn(usize) -> (Uuid, Outcome<(u16, String)>) + Clone + Send + 'static,
    ) -> Self {
        let (sender, replies) = channel();
        let (stop, stopped) = channel::<()>();
        thread::spawn(move || {
            let began = Instant::now();
            for number in 0_u32.. {
                let due = (every * number).saturating_sub(began.elapsed());
                if stopped.recv_timeout(due) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
                let (job, sender) = (job.clone(), sender.clone());
                thread::spawn(move || {
                    let began = Instant::now();
                    let (id, result) = job(number as usize);
                    let millis = millis(began.elapsed());
                    let (result, body) = match result {
                        Ok((status, body)) => (Ok(status), body),
                        Err(failure) => (Err(failure.to_string()), String::new()),
                    };
                    let _ = sender.send(Reply { id, millis, result, body });
                });
            }
        });
        Self { replies, stop }
    }

    /// Returns the replies since the last call.
    pub(super) fn take(&self) -> Vec<Reply> {
        self.replies.try_iter().collect()
    }

    /// Stops the requests, waits for the open ones, and returns their replies.
    pub(super) fn stop(self) -> Vec<Reply> {
        let Self { replies, stop } = self;
        drop(stop);
        // Ends with the last thread; each has a timeout.
        replies.iter().collect()
    }
}

/// Sends a request. Returns the status and, where it is not 200, the body.
fn send(server: SocketAddr, from: [u8; 4], request: &str) -> Outcome<(u16, String)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&server.into(), TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let status = response.get(9..12).ok_or("no response")?.parse()?;
    let body = response.split_once("\r\n\r\n").map(|(_, body)| body).filter(|_| status != 200);
    Ok((status, body.unwrap_or_default().to_owned()))
}

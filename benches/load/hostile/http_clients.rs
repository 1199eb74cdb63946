//! Honest clients over HTTP beside the good members: one asks for `/health`, others post durably.
//!
//! Each request has a connection and a thread of its own and begins when it is due, so that a slow answer does not
//! hide the next one. The time is that of the whole: connect, ask, read to the end. Whatever is not a 200 is kept as
//! what it was.

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

/// Who posts comes from one of so many addresses.
const ADDRESSES: usize = 100;

/// No answer after this is none.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a client was answered.
pub(super) struct Answer {
    /// Of the event that was posted; zero, where none was.
    pub(super) id: Uuid,
    pub(super) millis: f64,
    /// The status, or what went wrong.
    pub(super) result: Result<u16, String>,
    /// Of an answer that is no 200.
    pub(super) body: String,
}

impl Answer {
    pub(super) fn is_ok(&self) -> bool {
        self.result == Ok(200)
    }
}

/// Clients of one kind, who go on until this is dropped.
pub(super) struct Clients {
    answers: Receiver<Answer>,
    stop: Sender<()>,
}

impl Clients {
    /// One question for the health each second.
    pub(super) fn ask_for_health(server: SocketAddr) -> Self {
        Self::start(HEALTH, move |_| {
            let request = "GET /health HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n";
            (Uuid::nil(), ask(server, [127, 3, 0, 1], request))
        })
    }

    /// Two durable posts each second, of a page view each.
    pub(super) fn post_durably(server: SocketAddr) -> Self {
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
            (id, ask(server, [127, 3, 1, last], &(with_token(&head, &token(&visitor)) + &body)))
        })
    }

    fn start(
        every: Duration,
        job: impl Fn(usize) -> (Uuid, Outcome<(u16, String)>) + Clone + Send + 'static,
    ) -> Self {
        let (sender, answers) = channel();
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
                    let _ = sender.send(Answer { id, millis, result, body });
                });
            }
        });
        Self { answers, stop }
    }

    /// What has been answered since this was last asked.
    pub(super) fn take(&self) -> Vec<Answer> {
        self.answers.try_iter().collect()
    }

    /// No more is asked; what is still to be answered.
    pub(super) fn stop(self) -> Vec<Answer> {
        let Self { answers, stop } = self;
        drop(stop);
        // Ends when the last thread has ended, each of which has an end.
        answers.iter().collect()
    }
}

/// The answer's status and, where that is not 200, its body. It is read to its end.
fn ask(server: SocketAddr, from: [u8; 4], request: &str) -> Outcome<(u16, String)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&server.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.get(9..12).ok_or("no answer")?.parse()?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).filter(|_| status != 200);
    Ok((status, body.unwrap_or_default().to_owned()))
}

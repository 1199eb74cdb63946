//! Thousands of clients in one thread, so that the load takes little CPU beside the server.
//!
//! Joins, messages and leaves are sent at once; `turn`, and what builds on it, handles what is received.
//! Every wait has a timeout. A socket that ends before its client leaves is an error.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use crate::Outcome;
use crate::client::{Client, Counters, ReadResult};
use crate::snapshot::{self, Snapshot};
use crate::websocket::{self, CLOSE, TEXT};

/// The longest wait for the server.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// The first local port, and how many are used of each loopback address.
const FIRST_PORT: u32 = 10_000;
const PORTS: u32 = 50_000;

/// Sockets that this process has opened so far.
static CONNECTED: AtomicU32 = AtomicU32::new(0);

/// Connections that `join_all` opens at the same time.
const CONCURRENT_JOINS: usize = 128;

pub(crate) struct Swarm {
    server: SocketAddr,
    /// The number of local addresses.
    addresses: u32,
    poll: Poll,
    events: Events,
    /// By token; `None` after the end of the socket.
    clients: Vec<Option<Client>>,
    buffer: Vec<u8>,
    /// Edits an upgrade request before it is sent; the second argument is the visitor.
    edit: fn(String, &str) -> String,
    pub(crate) counters: Counters,
}

impl Swarm {
    pub(crate) fn new(server: SocketAddr) -> Outcome<Self> {
        Self::from_addresses(server, 1)
    }

    /// A swarm whose clients use this many local addresses in turn.
    pub(crate) fn from_addresses(server: SocketAddr, addresses: u32) -> Outcome<Self> {
        Ok(Self {
            server,
            addresses,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            clients: Vec::new(),
            buffer: vec![0; 32 * 1024],
            edit: |request, _| request,
            counters: Counters::default(),
        })
    }

    /// Sets the function that edits upgrade requests.
    pub(crate) fn with_edit(self, edit: fn(String, &str) -> String) -> Self {
        Self { edit, ..self }
    }

    /// Starts a join and returns the new client's index.
    pub(crate) fn join(&mut self, room: &str, visitor: &str, mood: Option<&str>) -> Outcome<usize> {
        let index = self.clients.len();
        let mut stream = connect(self.server, self.addresses)?;
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let request = (self.edit)(websocket::upgrade(room, visitor, mood), visitor);
        self.counters.bytes_out += request.len();
        self.clients.push(Some(Client::new(stream, request)));
        Ok(index)
    }

    /// Joins `count` clients, a few at a time, and waits for every welcome.
    pub(crate) fn join_all(&mut self, count: usize, join: impl Fn(usize) -> Join) -> Outcome {
        let before = self.counters.welcomed;
        for index in 0..count {
            while index - (self.counters.welcomed - before) >= CONCURRENT_JOINS {
                self.turn(TIMEOUT, &mut |_, _| {})?;
            }
            let Join { room, visitor, mood } = join(index);
            self.join(&room, &visitor, mood)?;
        }
        self.until("all clients are welcomed", |counters| counters.welcomed - before >= count)
    }

    pub(crate) fn send(&mut self, index: usize, message: &str) -> Outcome {
        self.send_all(index, [message])
    }

    /// Sends all messages in one write, so that the server may read them at once.
    pub(crate) fn send_all<'a>(
        &mut self,
        index: usize,
        messages: impl IntoIterator<Item = &'a str>,
    ) -> Outcome {
        let client = self.clients[index].as_mut().ok_or("a client sends after it has left")?;
        for message in messages {
            client.queue(TEXT, message.as_bytes(), &mut self.counters);
        }
        client.flush()
    }

    /// Closes with 1000.
    pub(crate) fn leave(&mut self, index: usize) -> Outcome {
        let client = self.clients[index].as_mut().ok_or("a client leaves twice")?;
        if !client.is_welcomed() {
            return Err("a join took so long that its client leaves before its welcome".into());
        }
        client.queue(CLOSE, &1000_u16.to_be_bytes(), &mut self.counters);
        client.flush()
    }

    /// Stops reading: what the server sends to this client stays in the kernel.
    pub(crate) fn stop_reading(&mut self, index: usize) -> Outcome {
        let client = self.clients[index].as_mut().ok_or("a client stops reading after it has left")?;
        client.stop_reading(self.poll.registry())
    }

    /// Closes with 1000 and closes the connection at once, with data unread.
    pub(crate) fn leave_unread(&mut self, index: usize) -> Outcome {
        self.leave(index)?;
        self.clients[index] = None;
        Ok(())
    }

    /// Closes the connection without a close frame.
    pub(crate) fn disconnect(&mut self, index: usize) {
        self.clients[index] = None;
    }

    /// Waits for events and handles them. `on_text` gets each text message with the client's index.
    pub(crate) fn turn(&mut self, wait: Duration, on_text: &mut dyn FnMut(usize, &[u8])) -> Outcome {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &self.events {
            let index = event.token().0;
            let Some(client) = &mut self.clients[index] else { continue };
            if event.is_writable() {
                client.on_writable()?;
            }
            if event.is_readable() || event.is_read_closed() {
                let on_text = &mut |text: &[u8]| on_text(index, text);
                let to_end = event.is_read_closed();
                let result = client.on_readable(to_end, &mut self.buffer, &mut self.counters, on_text)?;
                if result == ReadResult::Ended {
                    self.clients[index] = None;
                }
            }
        }
        Ok(())
    }

    /// Handles events until the counters fulfil a condition. `what` names it in the error.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Counters) -> bool) -> Outcome {
        let deadline = Instant::now() + TIMEOUT;
        while !done(&self.counters) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("timeout of {TIMEOUT:?} until {what}: {:?}", self.counters).into());
            }
            self.turn(left, &mut |_, _| {})?;
        }
        Ok(())
    }

    /// Handles events until a moment.
    pub(crate) fn run_until(&mut self, moment: Instant) -> Outcome {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left, &mut |_, _| {})?;
        }
    }

    /// Handles events until the last snapshot of every client says `present`. Returns when the last client got it.
    pub(crate) fn agree(&mut self, present: u32) -> Outcome<Instant> {
        let agrees = |text: &[u8]| snapshot::present(text) == Some(present);
        let mut right = vec![true; self.clients.len()];
        let mut wrong = 0;
        for (index, client) in self.open_clients() {
            if !agrees(&client.last) {
                right[index] = false;
                wrong += 1;
            }
        }
        let deadline = Instant::now() + TIMEOUT;
        while wrong > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{wrong} clients did not get a snapshot with present {present}").into());
            }
            self.turn(left, &mut |index, text| {
                if !right[index] && agrees(text) {
                    right[index] = true;
                    wrong -= 1;
                }
            })?;
        }
        Ok(Instant::now())
    }

    /// Clients that have not left, with their index.
    pub(crate) fn open_clients(&self) -> impl Iterator<Item = (usize, &Client)> {
        let clients = self.clients.iter().enumerate();
        clients
            .filter_map(|(index, client)| Some((index, client.as_ref()?)))
            .filter(|(_, it)| !it.is_closing())
    }

    /// Returns the last snapshot of all clients. An error where they differ.
    pub(crate) fn common_snapshot(&self) -> Outcome<Snapshot> {
        let mut common: Option<Snapshot> = None;
        for (index, client) in self.open_clients() {
            let snapshot = Snapshot::parse(&client.last)?;
            match &common {
                Some(common) if *common != snapshot => {
                    return Err(format!("client {index} has {snapshot:?}, others {common:?}").into());
                }
                _ => common = Some(snapshot),
            }
        }
        common.ok_or_else(|| "no client is left".into())
    }
}

/// Leaves the first addresses and ports to another process that connects to the same server.
pub(crate) fn skip_sources(count: u32) {
    CONNECTED.fetch_add(count, Ordering::Relaxed);
}

/// Starts to connect, from a chosen address and port: the kernel's own search for a free port slows down where
/// thousands are used or were used lately.
fn connect(server: SocketAddr, addresses: u32) -> Outcome<TcpStream> {
    let number = CONNECTED.fetch_add(1, Ordering::Relaxed);
    let (turn, address) = (number / addresses, number % addresses);
    let [_, _, high, low] = (turn / PORTS * addresses + address).to_be_bytes();
    let port = u16::try_from(FIRST_PORT + turn % PORTS)?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([127, 1, high, low], port)).into())?;
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error.into()),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Which visitor joins which room.
pub(crate) struct Join {
    pub(crate) room: String,
    pub(crate) visitor: String,
    pub(crate) mood: Option<&'static str>,
}

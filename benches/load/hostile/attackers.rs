//! The attackers: one thread of low priority that opens, sends, repeats and closes.
//!
//! The peers of each attack use all source addresses in turn. Errors of their sockets are expected and ignored.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use super::attacks::{Attack, Reads, Then};
use crate::Outcome;

/// The interval in which each peer is due.
const TICK: Duration = Duration::from_millis(20);

/// Writes of one flooding peer before the next peer's turn.
const FLOOD: usize = 16;

/// The priority of the thread: the honest members come first where cores are few.
const NICE: i32 = 5;

/// The counters of one attack.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct AttackCounts {
    pub(super) opened: usize,
    /// Connections that the hub closed.
    pub(super) closed: usize,
    /// Repeated messages.
    pub(super) repeats: usize,
}

/// The running attacks, until `stop`.
pub(super) struct Attackers {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Outcome<Vec<AttackCounts>>>,
}

impl Attackers {
    /// Starts these attacks from this many addresses.
    pub(super) fn start(server: SocketAddr, attacks: Vec<&'static Attack>, addresses: u8) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            // On Linux the nice value is the thread's own.
            rustix::process::nice(NICE)?;
            let mut peers = Peers::new(server, attacks, addresses)?;
            while !stopping.load(Ordering::Relaxed) {
                peers.tick()?;
            }
            Ok(peers.counts)
        });
        Self { stop, thread }
    }

    /// Disconnects all peers. Returns the counters in the order of the attacks.
    pub(super) fn stop(self) -> Outcome<Vec<AttackCounts>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the thread of the attackers panicked")?
    }
}

struct Peers {
    server: SocketAddr,
    attacks: Vec<&'static Attack>,
    addresses: u8,
    poll: Poll,
    events: Events,
    /// By token.
    open: slab::Slab<Peer>,
    /// By attack: open peers, the next arrivals, and counters.
    open_count: Vec<usize>,
    next: Vec<Instant>,
    counts: Vec<AttackCounts>,
    buffer: Vec<u8>,
}

struct Peer {
    /// The index of its attack.
    attack: usize,
    /// Among the peers of its attack.
    number: u32,
    stream: TcpStream,
    opened: Instant,
    unsent: Vec<u8>,
    repeats: u32,
}

impl Peers {
    fn new(server: SocketAddr, attacks: Vec<&'static Attack>, addresses: u8) -> Outcome<Self> {
        Ok(Self {
            server,
            addresses,
            poll: Poll::new()?,
            events: Events::with_capacity(4_096),
            open: slab::Slab::new(),
            open_count: vec![0; attacks.len()],
            next: vec![Instant::now(); attacks.len()],
            counts: vec![AttackCounts::default(); attacks.len()],
            attacks,
            buffer: vec![0; 64 * 1024],
        })
    }

    fn tick(&mut self) -> Outcome {
        let end = Instant::now() + TICK;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.turn(left)?;
        }
        self.open_due()?;
        self.repeat_due();
        Ok(())
    }

    /// Waits for events and handles them.
    fn turn(&mut self, wait: Duration) -> Outcome {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let mut closed = Vec::new();
        for event in &self.events {
            let Some(peer) = self.open.get_mut(event.token().0) else { continue };
            let attack = self.attacks[peer.attack];
            let is_over = event.is_error()
                || (attack.reads == Reads::All && event.is_readable() && !peer.read(&mut self.buffer))
                || event.is_read_closed()
                || (event.is_writable() && !peer.write())
                || !peer.flood(attack, &mut self.counts[peer.attack]);
            if is_over {
                closed.push(event.token().0);
            }
        }
        for token in closed {
            if let Some(peer) = self.open.try_remove(token) {
                self.open_count[peer.attack] -= 1;
                self.counts[peer.attack].closed += 1;
            }
        }
        Ok(())
    }

    /// Opens the peers that are due.
    fn open_due(&mut self) -> Outcome {
        let now = Instant::now();
        for index in 0..self.attacks.len() {
            if self.next[index] > now {
                continue;
            }
            let attack = self.attacks[index];
            let (count, every) = attack.arrivals;
            self.next[index] = (self.next[index] + every).max(now);
            for _ in 0..count {
                if self.open_count[index] < attack.max_open {
                    self.open(index, attack)?;
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, index: usize, attack: &Attack) -> Outcome {
        let number = self.counts[index].opened;
        let address = [127, 2, 0, u8::try_from((number + index) % usize::from(self.addresses))? + 1];
        let Some(mut stream) = connect(self.server, address, attack.reads)? else { return Ok(()) };
        let entry = self.open.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(entry.key()), interest)?;
        let number = u32::try_from(number)?;
        let unsent = (attack.opening)(number);
        entry.insert(Peer { attack: index, number, stream, opened: Instant::now(), unsent, repeats: 0 });
        self.open_count[index] += 1;
        self.counts[index].opened += 1;
        Ok(())
    }

    /// Sends the repeats that are due, and disconnects peers at the end of their lifetime.
    fn repeat_due(&mut self) {
        let Self { open, open_count, counts, attacks, buffer, .. } = self;
        open.retain(|_, peer| {
            let attack = attacks[peer.attack];
            let age = peer.opened.elapsed();
            if age >= attack.lifetime {
                open_count[peer.attack] -= 1;
                return false;
            }
            if let Reads::Slowly(bytes) = attack.reads {
                // An event reports a closed peer.
                let _ = peer.stream.read(&mut buffer[..bytes]);
            }
            peer.flood(attack, &mut counts[peer.attack]);
            if let Then::Repeat(payload, rate) = attack.then {
                let due = u32::try_from(age.as_millis()).unwrap_or(u32::MAX) / 10 * rate / 100;
                while peer.repeats < due && peer.unsent.is_empty() {
                    peer.repeats += 1;
                    counts[peer.attack].repeats += 1;
                    peer.unsent = payload(peer.number);
                    peer.write();
                }
            }
            true
        });
    }
}

impl Peer {
    /// Reads until the socket would block. Returns whether it is still open.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// Fills the socket of a flooding peer. Returns whether it is still open.
    fn flood(&mut self, attack: &Attack, counts: &mut AttackCounts) -> bool {
        let Then::Flood(payload) = attack.then else { return true };
        for _ in 0..FLOOD {
            if self.unsent.is_empty() {
                self.unsent = payload();
                counts.repeats += 1;
            }
            if !self.write() {
                return false;
            }
            if !self.unsent.is_empty() {
                break;
            }
        }
        true
    }

    /// Writes until the socket would block. Returns whether it is still open.
    fn write(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(taken) => drop(self.unsent.drain(..taken)),
                Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected),
            }
        }
        true
    }
}

/// Starts to connect. Dropping the stream resets the connection. `None` where no local port is free.
fn connect(server: SocketAddr, address: [u8; 4], reads: Reads) -> Outcome<Option<TcpStream>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    if reads != Reads::All {
        socket.set_recv_buffer_size(2_048)?;
    }
    if socket.bind(&SocketAddr::from((address, 0)).into()).is_err() {
        return Ok(None);
    }
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Ok(None),
        _ => Ok(Some(TcpStream::from_std(socket.into()))),
    }
}

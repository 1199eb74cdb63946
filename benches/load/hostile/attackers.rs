//! The hostile peers at work: one thread of low priority, which opens, says, repeats and lets go.
//!
//! They come from so many addresses in turn, every kind from each. Nothing that happens to them is a failure.

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

/// How often each peer is looked at.
const TICK: Duration = Duration::from_millis(20);

/// What one peer of a flood says at once, at most, before it is another's turn.
const FLOOD: usize = 16;

/// The good members go first where there are too few cores.
const NICE: i32 = 5;

/// What peers of one kind have done.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Done {
    pub(super) opened: usize,
    /// Connections that the hub has ended.
    pub(super) ended: usize,
    /// What was said again and again.
    pub(super) said: usize,
}

/// Hostile peers, who go on until they are called off.
pub(super) struct Crowd {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Outcome<Vec<Done>>>,
}

impl Crowd {
    /// Peers of these kinds, from so many addresses.
    pub(super) fn start(server: SocketAddr, attacks: Vec<&'static Attack>, addresses: u8) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            // Of this thread alone.
            rustix::process::nice(NICE)?;
            let mut peers = Peers::new(server, attacks, addresses)?;
            while !stopping.load(Ordering::Relaxed) {
                peers.tick()?;
            }
            Ok(peers.done)
        });
        Self { stop, thread }
    }

    /// All break off. What each kind has done, in the order of the attacks.
    pub(super) fn call_off(self) -> Outcome<Vec<Done>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the hostile peers have panicked")?
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
    /// How many of each kind are open, and when more come.
    here: Vec<usize>,
    next: Vec<Instant>,
    done: Vec<Done>,
    buffer: Vec<u8>,
}

struct Peer {
    kind: usize,
    /// Among those of its kind.
    number: u32,
    stream: TcpStream,
    born: Instant,
    unsent: Vec<u8>,
    said: u32,
}

impl Peers {
    fn new(server: SocketAddr, attacks: Vec<&'static Attack>, addresses: u8) -> Outcome<Self> {
        Ok(Self {
            server,
            addresses,
            poll: Poll::new()?,
            events: Events::with_capacity(4_096),
            open: slab::Slab::new(),
            here: vec![0; attacks.len()],
            next: vec![Instant::now(); attacks.len()],
            done: vec![Done::default(); attacks.len()],
            attacks,
            buffer: vec![0; 64 * 1024],
        })
    }

    fn tick(&mut self) -> Outcome {
        let end = Instant::now() + TICK;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.turn(left)?;
        }
        self.come()?;
        self.go_on();
        Ok(())
    }

    /// Waits for something to happen, and takes it in.
    fn turn(&mut self, wait: Duration) -> Outcome {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let mut ended = Vec::new();
        for event in &self.events {
            let Some(peer) = self.open.get_mut(event.token().0) else { continue };
            let attack = self.attacks[peer.kind];
            let is_over = event.is_error()
                || (attack.reads == Reads::All && event.is_readable() && !peer.read(&mut self.buffer))
                || event.is_read_closed()
                || (event.is_writable() && !peer.write())
                || !peer.flood(attack, &mut self.done[peer.kind]);
            if is_over {
                ended.push(event.token().0);
            }
        }
        for token in ended {
            if let Some(peer) = self.open.try_remove(token) {
                self.here[peer.kind] -= 1;
                self.done[peer.kind].ended += 1;
            }
        }
        Ok(())
    }

    /// Whoever is due comes.
    fn come(&mut self) -> Outcome {
        let now = Instant::now();
        for kind in 0..self.attacks.len() {
            if self.next[kind] > now {
                continue;
            }
            let attack = self.attacks[kind];
            let (count, every) = attack.come;
            self.next[kind] = (self.next[kind] + every).max(now);
            for _ in 0..count {
                if self.here[kind] < attack.most {
                    self.open(kind, attack)?;
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, kind: usize, attack: &Attack) -> Outcome {
        let number = self.done[kind].opened;
        let address = [127, 2, 0, u8::try_from((number + kind) % usize::from(self.addresses))? + 1];
        let Some(mut stream) = connect(self.server, address, attack.reads)? else { return Ok(()) };
        let entry = self.open.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(entry.key()), interest)?;
        let number = u32::try_from(number)?;
        let unsent = (attack.says)(number);
        entry.insert(Peer { kind, number, stream, born: Instant::now(), unsent, said: 0 });
        self.here[kind] += 1;
        self.done[kind].opened += 1;
        Ok(())
    }

    /// Everybody goes on with what they do, or has lived for long enough.
    fn go_on(&mut self) {
        let Self { open, here, done, attacks, buffer, .. } = self;
        open.retain(|_, peer| {
            let attack = attacks[peer.kind];
            let age = peer.born.elapsed();
            if age >= attack.life {
                here[peer.kind] -= 1;
                return false;
            }
            if let Reads::Slowly(bytes) = attack.reads {
                // Whoever has ended is found by its event.
                let _ = peer.stream.read(&mut buffer[..bytes]);
            }
            peer.flood(attack, &mut done[peer.kind]);
            if let Then::Repeat(words, rate) = attack.then {
                let due = u32::try_from(age.as_millis()).unwrap_or(u32::MAX) / 10 * rate / 100;
                while peer.said < due && peer.unsent.is_empty() {
                    peer.said += 1;
                    done[peer.kind].said += 1;
                    peer.unsent = words(peer.number);
                    peer.write();
                }
            }
            true
        });
    }
}

impl Peer {
    /// Reads what there is, and says whether there may be more.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// Fills the socket, where that is the attack, and says whether it is still there.
    fn flood(&mut self, attack: &Attack, done: &mut Done) -> bool {
        let Then::Flood(words) = attack.then else { return true };
        for _ in 0..FLOOD {
            if self.unsent.is_empty() {
                self.unsent = words();
                done.said += 1;
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

    /// Writes what the socket takes, and says whether it is still there.
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

/// Begins to connect. When it is dropped, it breaks; where there is no port, it does not even begin.
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

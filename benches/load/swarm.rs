//! Thousands of sockets in one thread, so that the load costs little beside what is measured.
//!
//! Joins, says and leaves take effect at once; everything that comes back is taken in by `turn` and
//! what is built on it. Every wait has an end. A socket that ends without having left is a failure.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use crate::Outcome;
use crate::client::{Goes, Member, Tally};
use crate::snapshot::{self, State};
use crate::websocket::{self, CLOSE, TEXT};

/// How long the server may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The ports of one loopback address that are used, before the next address is.
const FIRST_PORT: u32 = 10_000;
const PORTS: u32 = 50_000;

/// Sockets that this process has opened so far.
static CONNECTED: AtomicU32 = AtomicU32::new(0);

/// Connections that are being made at the same time, where it does not matter.
const AT_ONCE: usize = 128;

pub(crate) struct Swarm {
    server: SocketAddr,
    /// How many addresses its members have.
    addresses: u32,
    poll: Poll,
    events: Events,
    /// By token; those who have left are `None`.
    members: Vec<Option<Member>>,
    buffer: Vec<u8>,
    /// Changes a visitor's request to join before it is sent.
    prepare: fn(String, &str) -> String,
    pub(crate) tally: Tally,
}

impl Swarm {
    pub(crate) fn new(server: SocketAddr) -> Outcome<Self> {
        Self::from_addresses(server, 1)
    }

    /// One whose members come from so many addresses, in turn.
    pub(crate) fn from_addresses(server: SocketAddr, addresses: u32) -> Outcome<Self> {
        Ok(Self {
            server,
            addresses,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            members: Vec::new(),
            buffer: vec![0; 32 * 1024],
            prepare: |request, _| request,
            tally: Tally::default(),
        })
    }

    /// The same, whose requests to join are changed by this before they are sent; it is given the visitor too.
    pub(crate) fn preparing(self, prepare: fn(String, &str) -> String) -> Self {
        Self { prepare, ..self }
    }

    /// Begins to join, and returns the new member's number.
    pub(crate) fn join(&mut self, room: &str, visitor: &str, mood: Option<&str>) -> Outcome<usize> {
        let who = self.members.len();
        let mut stream = connect(self.server, self.addresses)?;
        self.poll.registry().register(&mut stream, Token(who), Interest::READABLE | Interest::WRITABLE)?;
        let request = (self.prepare)(websocket::upgrade(room, visitor, mood), visitor);
        self.tally.bytes_out += request.len();
        self.members.push(Some(Member::new(stream, request)));
        Ok(who)
    }

    /// Joins them all, a few at a time, and waits for every welcome.
    pub(crate) fn join_all(&mut self, count: usize, who: impl Fn(usize) -> Newcomer) -> Outcome {
        let before = self.tally.welcomed;
        for index in 0..count {
            while index - (self.tally.welcomed - before) >= AT_ONCE {
                self.turn(PATIENCE, &mut |_, _| {})?;
            }
            let Newcomer { room, visitor, mood } = who(index);
            self.join(&room, &visitor, mood)?;
        }
        self.until("all are welcomed", |tally| tally.welcomed - before >= count)
    }

    pub(crate) fn say(&mut self, who: usize, message: &str) -> Outcome {
        self.say_all(who, [message])
    }

    /// Says it all at once, so that the server may read it at once.
    pub(crate) fn say_all<'a>(&mut self, who: usize, messages: impl IntoIterator<Item = &'a str>) -> Outcome {
        let member = self.members[who].as_mut().ok_or("somebody who has left speaks")?;
        for message in messages {
            member.queue(TEXT, message.as_bytes(), &mut self.tally);
        }
        member.flush()
    }

    /// Closes with 1000.
    pub(crate) fn leave(&mut self, who: usize) -> Outcome {
        let member = self.members[who].as_mut().ok_or("somebody leaves twice")?;
        if !member.is_welcomed() {
            return Err("a join took so long that it was time to leave".into());
        }
        member.queue(CLOSE, &1000_u16.to_be_bytes(), &mut self.tally);
        member.flush()
    }

    /// Whatever comes for this member from now on stays in its socket.
    pub(crate) fn stop_reading(&mut self, who: usize) -> Outcome {
        let member = self.members[who].as_mut().ok_or("somebody who has left reads")?;
        member.stop_reading(self.poll.registry())
    }

    /// Closes with 1000 and the connection at once, whatever is unread in it.
    pub(crate) fn leave_unread(&mut self, who: usize) -> Outcome {
        self.leave(who)?;
        self.members[who] = None;
        Ok(())
    }

    /// The connection breaks.
    pub(crate) fn break_off(&mut self, who: usize) {
        self.members[who] = None;
    }

    /// Waits for something to happen, takes it in, and tells `hear` who heard what.
    pub(crate) fn turn(&mut self, wait: Duration, hear: &mut dyn FnMut(usize, &[u8])) -> Outcome {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &self.events {
            let who = event.token().0;
            let Some(member) = &mut self.members[who] else { continue };
            if event.is_writable() {
                member.writable()?;
            }
            if event.is_readable() || event.is_read_closed() {
                let hear = &mut |text: &[u8]| hear(who, text);
                let to_the_end = event.is_read_closed();
                if member.readable(to_the_end, &mut self.buffer, &mut self.tally, hear)? == Goes::Ended {
                    self.members[who] = None;
                }
            }
        }
        Ok(())
    }

    /// Takes in what comes until the tally says so.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Tally) -> bool) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        while !done(&self.tally) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{PATIENCE:?} were not enough until {what}: {:?}", self.tally).into());
            }
            self.turn(left, &mut |_, _| {})?;
        }
        Ok(())
    }

    /// Takes in what comes until a moment.
    pub(crate) fn run_until(&mut self, moment: Instant) -> Outcome {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left, &mut |_, _| {})?;
        }
    }

    /// Takes in what comes until everybody who is here has last heard that so many are present.
    /// Returns the moment at which the last of them heard it.
    pub(crate) fn agree(&mut self, present: u32) -> Outcome<Instant> {
        let agrees = |text: &[u8]| snapshot::present(text) == Some(present);
        let mut right = vec![true; self.members.len()];
        let mut wrong = 0;
        for (who, member) in self.here() {
            if !agrees(&member.last) {
                right[who] = false;
                wrong += 1;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while wrong > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{wrong} members never heard that {present} are present").into());
            }
            self.turn(left, &mut |who, text| {
                if !right[who] && agrees(text) {
                    right[who] = true;
                    wrong -= 1;
                }
            })?;
        }
        Ok(Instant::now())
    }

    /// Those who have not left.
    pub(crate) fn here(&self) -> impl Iterator<Item = (usize, &Member)> {
        let members = self.members.iter().enumerate();
        members.filter_map(|(who, member)| Some((who, member.as_ref()?))).filter(|(_, it)| !it.is_leaving())
    }

    /// What everybody here was last told, which has to be one and the same.
    pub(crate) fn common_state(&self) -> Outcome<State> {
        let mut common: Option<State> = None;
        for (who, member) in self.here() {
            let state = State::parse(&member.last)?;
            match &common {
                Some(common) if *common != state => {
                    return Err(format!("member {who} was told {state:?}, others {common:?}").into());
                }
                _ => common = Some(state),
            }
        }
        common.ok_or_else(|| "nobody is here".into())
    }
}

/// Begins to connect, from an address and port of this tool's own choice: the kernel looks longer and
/// longer for a free port, where thousands are taken or were lately.
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

/// Who joins, where.
pub(crate) struct Newcomer {
    pub(crate) room: String,
    pub(crate) visitor: String,
    pub(crate) mood: Option<&'static str>,
}

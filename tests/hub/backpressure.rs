//! Slow and dead peers, thousands at once: the hub closes each by its timeout and frees all its resources.
//!
//! The hub runs as a separate process, so that it has its own limit of open files. `PEERS=1500` makes more peers than
//! the default.

use std::fs;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::support::{Program, TIMEOUT, eventually};

/// Number of waves of peers, one after the other.
const WAVES: usize = 4;

/// Default number of peers of each kind (`PEERS`).
const PEERS: usize = 300;

/// A peer is closed after twice this time if it sends nothing, or if it reads nothing.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum number of parallel connects.
const CONNECTING: usize = 200;

/// The behaviour of one kind of peer, and the timeout that closes it.
struct PeerKind {
    name: &'static str,
    sends: fn() -> Vec<u8>,
    /// What it sends each second after that.
    drip: &'static [u8],
    reads: Reads,
    /// The shortest lifetime, where the peer can notice its end.
    minimum: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Everything,
    OneBytePerSecond,
    Nothing,
}

const UPGRADE: &str = "GET /rooms/pit/socket HTTP/1.1\r\nhost: hub\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// An upgrade, followed by these bytes.
fn socket(frames: &[u8]) -> Vec<u8> {
    [UPGRADE.as_bytes(), frames].concat()
}

/// An upgrade and pings: the pongs exceed the kernel's buffers of a peer that does not read.
fn chatter() -> Vec<u8> {
    let ping = [&[0x89, 0xfd, 0, 0, 0, 0][..], &[b' '; 125]].concat();
    socket(&ping.repeat(1_200))
}

const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

const fn kind(name: &'static str, sends: fn() -> Vec<u8>, minimum: Duration) -> PeerKind {
    PeerKind { name, sends, drip: b"", reads: Reads::Everything, minimum }
}

static PEER_KINDS: [PeerKind; 13] = [
    kind("sends nothing", Vec::new, HEAD_TIMEOUT),
    kind("sends an incomplete head", || b"GET /health HTTP/1.1\r\nhost: hub\r\n".to_vec(), HEAD_TIMEOUT),
    PeerKind {
        drip: b"x",
        ..kind("sends its head byte by byte", || b"GET /health HTTP/1.1\r\nx: ".to_vec(), HEAD_TIMEOUT)
    },
    kind("sends one request", || b"GET /rooms/pit HTTP/1.1\r\nhost: hub\r\n\r\n".to_vec(), HEAD_TIMEOUT),
    kind("speaks TLS", || b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20), Duration::ZERO),
    PeerKind {
        drip: b" ",
        ..kind(
            "sends a body byte by byte",
            || b"POST /page-view HTTP/1.1\r\nhost: hub\r\ncontent-length: 999\r\n\r\n[".to_vec(),
            BODY_TIMEOUT,
        )
    },
    PeerKind {
        reads: Reads::Nothing,
        ..kind(
            "sends requests and reads no response",
            || b"GET /unified-stats?range=7d HTTP/1.1\r\nhost: hub\r\n\r\n".repeat(40),
            IDLE_TIMEOUT,
        )
    },
    kind("half-open socket", || socket(&[]), IDLE_TIMEOUT),
    PeerKind {
        drip: b"x",
        ..kind("sends a message byte by byte", || socket(&[0x81, 0xfe, 0x0f, 0xa0, 0, 0, 0, 0]), IDLE_TIMEOUT)
    },
    PeerKind {
        // It sends pongs in between, which is no progress of the message.
        drip: &[0x8a, 0x80, 0, 0, 0, 0],
        ..kind("never ends its fragmented message", || socket(&[0x01, 0x81, 0, 0, 0, 0, b'{']), IDLE_TIMEOUT)
    },
    kind("does not answer a close", || socket(&[0x82, 0x80, 0, 0, 0, 0]), Duration::ZERO),
    PeerKind { reads: Reads::Nothing, ..kind("never reads", chatter, IDLE_TIMEOUT) },
    PeerKind { reads: Reads::OneBytePerSecond, ..kind("reads a byte a second", chatter, IDLE_TIMEOUT) },
];

/// Runs a peer until the hub closes it. Returns its lifetime, and the connection, so that this end stays open.
async fn run_peer(
    address: SocketAddr,
    kind: &'static PeerKind,
    connecting: Arc<Semaphore>,
) -> (Duration, TcpStream) {
    let turn = connecting.acquire().await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    if kind.reads != Reads::Everything {
        socket.set_recv_buffer_size(2_048).unwrap();
    }
    let began = Instant::now();
    let mut stream = socket.connect(address).await.unwrap();
    drop(turn);
    let (mut reading, mut writing) = stream.split();
    let talk = async {
        let mut second = interval(Duration::from_secs(1));
        let mut goes_on = writing.write_all(&(kind.sends)()).await.is_ok();
        while goes_on && !kind.drip.is_empty() {
            second.tick().await;
            goes_on = writing.write_all(kind.drip).await.is_ok();
        }
        pending::<()>().await;
    };
    let listen = async {
        let (mut second, mut buffer) = (interval(Duration::from_secs(1)), [0; 1_024]);
        match kind.reads {
            Reads::Everything => while matches!(reading.read(&mut buffer).await, Ok(1..)) {},
            // These peers cannot notice that they are closed.
            Reads::OneBytePerSecond => loop {
                second.tick().await;
                let _ = reading.read(&mut buffer[..1]).await;
            },
            Reads::Nothing => pending().await,
        }
    };
    tokio::select! { () = talk => {}, () = listen => {} }
    (began.elapsed(), stream)
}

/// Returns the hub's open files and its resident memory in kB.
fn resources(hub: &Program) -> (usize, u64) {
    let process = format!("/proc/{}", hub.id().as_raw_nonzero());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (fs::read_dir(format!("{process}/fd")).unwrap().count(), resident)
}

/// Runs peers of all kinds with at most this timeout at the same time, until the hub has closed all of them. Returns the
/// largest resident memory, and the number of open files at the end.
async fn wave(hub: &Program, peers: usize, longest: Duration) -> (u64, usize) {
    let (address, connecting) = (hub.address.parse().unwrap(), Arc::new(Semaphore::new(CONNECTING)));
    let (mut readers, mut others) = (JoinSet::new(), JoinSet::new());
    for kind in (0..peers).flat_map(|_| &PEER_KINDS).filter(|kind| kind.minimum <= longest) {
        let peer = run_peer(address, kind, Arc::clone(&connecting));
        if kind.reads == Reads::Everything {
            readers.spawn(async move { (kind, peer.await) });
        } else {
            others.spawn(peer);
        }
    }
    let (mut files, mut memory, mut ended) = (0, 0, Vec::new());
    let mut look = interval(Duration::from_millis(50));
    let all = timeout(3 * TIMEOUT, async {
        while !readers.is_empty() {
            tokio::select! {
                Some(peer) = readers.join_next() => ended.push(peer.unwrap()),
                _ = look.tick() => {
                    let (now, resident) = resources(hub);
                    (files, memory) = (files.max(now), memory.max(resident));
                }
            }
        }
    });
    all.await.expect("all peers are closed");
    for kind in &PEER_KINDS {
        let lived = ended.iter().filter(|(it, _)| it.name == kind.name).map(|(_, (lived, _))| *lived);
        if let Some((shortest, longest)) = lived.clone().min().zip(lived.max()) {
            println!("{:35} lived {shortest:.1?} to {longest:.1?}, timeout {:?}", kind.name, kind.minimum);
            assert!(shortest >= kind.minimum.mul_f64(0.9), "{} lived only {shortest:?}", kind.name);
        }
    }
    let gone = async || {
        hub.metric("breathing_room_connections").await == 0.0
            && hub.metric("breathing_room_http_connections").await == 1.0
    };
    eventually(gone, "all connections are closed").await;
    assert_eq!(hub.metric("breathing_room_rooms").await, 0.0);
    assert_eq!(hub.metric("breathing_room_unsent_bytes").await, 0.0);
    let left = resources(hub).0;
    println!("{peers} of each kind: at most {files} files and {memory} kB, {left} files at the end");
    (memory, left)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_dead_peers_are_closed_and_their_memory_is_freed() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let asked = std::env::var("PEERS").map_or(PEERS, |peers| peers.parse().unwrap());
    let room = usize::try_from(maximum.unwrap_or(u64::MAX)).unwrap_or(usize::MAX).saturating_sub(500);
    let peers = asked.min(room / PEER_KINDS.len());
    let folder = tempfile::tempdir().unwrap();
    let ping_interval = humantime::format_duration(PING_INTERVAL).to_string();
    let settings =
        [("RATE_LIMITS", "off"), ("MAX_CONNECTIONS", "20000"), ("PING_INTERVAL", ping_interval.as_str())];
    let hub = Program::start(folder.path(), &settings).await;
    hub.get("/unified-stats?range=7d").send().await.expect(200);

    // The peak of a wave varies by some percent. The last wave is compared with the largest one before it.
    let (mut memory, mut files) = wave(&hub, peers, BODY_TIMEOUT).await;
    for _ in 2..WAVES {
        let (now, left) = wave(&hub, peers, HEAD_TIMEOUT).await;
        (memory, files) = (memory.max(now), left);
    }
    let (memory_again, files_again) = wave(&hub, peers, HEAD_TIMEOUT).await;
    assert!(files_again <= files + 12, "all files except the database's are closed");
    assert!(memory_again as f64 <= memory as f64 * 1.1, "{memory_again} kB after {memory} kB");

    let page = hub.get("/metrics").send().await.text;
    let cut_off = |because: &str| -> usize {
        let name = format!("breathing_room_sockets_aborted_total{{reason=\"{because}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)).expect("the counter").parse().unwrap()
    };
    let (silent, stalled, unclosed) = (cut_off("silent"), cut_off("stalled"), cut_off("unclosed"));
    println!("cut off: {silent} silent, {stalled} stalled, {unclosed} unclosed");
    assert_eq!(unclosed, WAVES * peers);
    // On a busy machine the sweep is late, and the kernel's timeout closes peers that do not read.
    assert!((WAVES * 3 * peers..=WAVES * 5 * peers).contains(&(silent + stalled)), "{silent} and {stalled}");
    assert!(silent >= WAVES * 3 * peers, "{silent}");
}

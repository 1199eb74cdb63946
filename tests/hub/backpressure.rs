//! Slow and dead peers, thousands at once: each ends by its rule, and frees all that it held.
//!
//! The hub is a process of its own here, so that both sides have their open files. `PEERS=1500` makes more of
//! them than the usual run does.

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

/// They come so often in turn.
const WAVES: usize = 4;

/// Of each kind, unless `PEERS` says otherwise.
const PEERS: usize = 300;

/// A peer that is not heard for twice this is dead, and so is one that takes nothing for as long.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Connections that are being made at the same time.
const CONNECTING: usize = 200;

/// How the peers of one kind behave, and when the hub should be done with them.
struct Kind {
    name: &'static str,
    says: fn() -> Vec<u8>,
    /// What it says each second after that.
    drip: &'static [u8],
    reads: Reads,
    /// No sooner than this, as far as the peer can tell.
    lives: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Everything,
    AByteASecond,
    Nothing,
}

const UPGRADE: &str = "GET /rooms/pit/socket HTTP/1.1\r\nhost: hub\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A socket that goes on with these bytes.
fn socket(frames: &[u8]) -> Vec<u8> {
    [UPGRADE.as_bytes(), frames].concat()
}

/// A socket whose pongs are more than the kernel takes for a peer that does not read.
fn chatter() -> Vec<u8> {
    let ping = [&[0x89, 0xfd, 0, 0, 0, 0][..], &[b' '; 125]].concat();
    socket(&ping.repeat(1_200))
}

const HEAD: Duration = Duration::from_secs(5);
const BODY: Duration = Duration::from_secs(10);
const DEAD: Duration = Duration::from_secs(4);

const fn kind(name: &'static str, says: fn() -> Vec<u8>, lives: Duration) -> Kind {
    Kind { name, says, drip: b"", reads: Reads::Everything, lives }
}

static KINDS: [Kind; 13] = [
    kind("says nothing", Vec::new, HEAD),
    kind("says half a head", || b"GET /health HTTP/1.1\r\nhost: hub\r\n".to_vec(), HEAD),
    Kind {
        drip: b"x",
        ..kind("says its head byte by byte", || b"GET /health HTTP/1.1\r\nx: ".to_vec(), HEAD)
    },
    kind("asks once", || b"GET /rooms/pit HTTP/1.1\r\nhost: hub\r\n\r\n".to_vec(), HEAD),
    kind("speaks TLS", || b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20), Duration::ZERO),
    Kind {
        drip: b" ",
        ..kind(
            "posts byte by byte",
            || b"POST /page-view HTTP/1.1\r\nhost: hub\r\ncontent-length: 999\r\n\r\n[".to_vec(),
            BODY,
        )
    },
    Kind {
        reads: Reads::Nothing,
        ..kind(
            "asks a lot and takes no answer",
            || b"GET /unified-stats?range=7d HTTP/1.1\r\nhost: hub\r\n\r\n".repeat(40),
            DEAD,
        )
    },
    kind("is half open", || socket(&[]), DEAD),
    Kind {
        drip: b"x",
        ..kind("says a message byte by byte", || socket(&[0x81, 0xfe, 0x0f, 0xa0, 0, 0, 0, 0]), DEAD)
    },
    Kind {
        // Pongs in between, so that it seems to be alive.
        drip: &[0x8a, 0x80, 0, 0, 0, 0],
        ..kind("never ends its message", || socket(&[0x01, 0x81, 0, 0, 0, 0, b'{']), DEAD)
    },
    kind("does not answer a close", || socket(&[0x82, 0x80, 0, 0, 0, 0]), Duration::ZERO),
    Kind { reads: Reads::Nothing, ..kind("never reads", chatter, DEAD) },
    Kind { reads: Reads::AByteASecond, ..kind("reads a byte a second", chatter, DEAD) },
];

/// Lives until the hub is done with it, and says for how long; keeps its end of the connection.
async fn live(address: SocketAddr, kind: &'static Kind, connecting: Arc<Semaphore>) -> (Duration, TcpStream) {
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
        let mut goes_on = writing.write_all(&(kind.says)()).await.is_ok();
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
            // A peer like these need not find out.
            Reads::AByteASecond => loop {
                second.tick().await;
                let _ = reading.read(&mut buffer[..1]).await;
            },
            Reads::Nothing => pending().await,
        }
    };
    tokio::select! { () = talk => {}, () = listen => {} }
    (began.elapsed(), stream)
}

/// What the hub holds: open files, and kilobytes of resident memory.
fn holds(hub: &Program) -> (usize, u64) {
    let process = format!("/proc/{}", hub.id().as_raw_nonzero());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (fs::read_dir(format!("{process}/fd")).unwrap().count(), resident)
}

/// All kinds that live for so long at most, at the same time, until the hub has let all of them go. Returns the
/// most memory that it took, and the files that are open in the end.
async fn wave(hub: &Program, peers: usize, longest: Duration) -> (u64, usize) {
    let (address, connecting) = (hub.address.parse().unwrap(), Arc::new(Semaphore::new(CONNECTING)));
    let (mut telling, mut others) = (JoinSet::new(), JoinSet::new());
    for kind in (0..peers).flat_map(|_| &KINDS).filter(|kind| kind.lives <= longest) {
        let peer = live(address, kind, Arc::clone(&connecting));
        if kind.reads == Reads::Everything {
            telling.spawn(async move { (kind, peer.await) });
        } else {
            others.spawn(peer);
        }
    }
    let (mut files, mut memory, mut ended) = (0, 0, Vec::new());
    let mut look = interval(Duration::from_millis(50));
    let all = timeout(3 * TIMEOUT, async {
        while !telling.is_empty() {
            tokio::select! {
                Some(peer) = telling.join_next() => ended.push(peer.unwrap()),
                _ = look.tick() => {
                    let (now, resident) = holds(hub);
                    (files, memory) = (files.max(now), memory.max(resident));
                }
            }
        }
    });
    all.await.expect("all of them end");
    for kind in &KINDS {
        let lived = ended.iter().filter(|(it, _)| it.name == kind.name).map(|(_, (lived, _))| *lived);
        if let Some((shortest, longest)) = lived.clone().min().zip(lived.max()) {
            println!("{:35} lived {shortest:.1?} to {longest:.1?}, by the rule {:?}", kind.name, kind.lives);
            assert!(shortest >= kind.lives.mul_f64(0.9), "{} lived only {shortest:?}", kind.name);
        }
    }
    let gone = async || {
        hub.metric("breathing_room_connections").await == 0.0
            && hub.metric("breathing_room_http_connections").await == 1.0
    };
    eventually(gone, "all have gone").await;
    assert_eq!(hub.metric("breathing_room_rooms").await, 0.0);
    assert_eq!(hub.metric("breathing_room_unsent_bytes").await, 0.0);
    let left = holds(hub).0;
    println!("{peers} of each: at most {files} files and {memory} kB, and in the end {left} files");
    (memory, left)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_dead_peers_are_closed_and_their_memory_is_freed() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let asked = std::env::var("PEERS").map_or(PEERS, |peers| peers.parse().unwrap());
    let room = usize::try_from(maximum.unwrap_or(u64::MAX)).unwrap_or(usize::MAX).saturating_sub(500);
    let peers = asked.min(room / KINDS.len());
    let folder = tempfile::tempdir().unwrap();
    let ping_interval = humantime::format_duration(PING_INTERVAL).to_string();
    let settings =
        [("RATE_LIMITS", "off"), ("MAX_CONNECTIONS", "20000"), ("PING_INTERVAL", ping_interval.as_str())];
    let hub = Program::start(folder.path(), &settings).await;
    hub.get("/unified-stats?range=7d").send().await.expect(200);

    // What a wave takes at most differs by some percent with how its peers fall together, so that the last one is
    // held against the largest before it.
    let (mut memory, mut files) = wave(&hub, peers, BODY).await;
    for _ in 2..WAVES {
        let (now, left) = wave(&hub, peers, HEAD).await;
        (memory, files) = (memory.max(now), left);
    }
    let (memory_again, files_again) = wave(&hub, peers, HEAD).await;
    assert!(files_again <= files + 12, "but for the database's, all files are closed");
    assert!(memory_again as f64 <= memory as f64 * 1.1, "{memory_again} kB after {memory} kB");

    let page = hub.get("/metrics").send().await.text;
    let cut_off = |because: &str| -> usize {
        let name = format!("breathing_room_sockets_aborted_total{{reason=\"{because}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)).expect("the counter").parse().unwrap()
    };
    let (silent, stalled, unclosed) = (cut_off("silent"), cut_off("stalled"), cut_off("unclosed"));
    println!("cut off: {silent} silent, {stalled} stalled, {unclosed} unclosed");
    assert_eq!(unclosed, WAVES * peers);
    // Where the machine is so busy that the sweep is late, the kernel ends those who do not read.
    assert!((WAVES * 3 * peers..=WAVES * 5 * peers).contains(&(silent + stalled)), "{silent} and {stalled}");
    assert!(silent >= WAVES * 3 * peers, "{silent}");
}

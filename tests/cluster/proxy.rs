//! A TCP proxy between a hub and its NATS server, which delays what passes, or stops it as a broken link does.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The proxy ends when it is dropped.
pub struct Proxy {
    address: String,
    is_cut: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens for connections to `server`. Each byte passes after this delay, in either direction.
    pub async fn start(server: String, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (is_cut, cut) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, delay, cut));
        Self { address, is_cut, _tasks: tasks }
    }

    /// The address that the hub connects to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Stops all bytes, on open connections and on new ones. No connection ends.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Lets bytes pass again, those that have waited first.
    pub fn heal(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn accept(listener: TcpListener, server: String, delay: Duration, cut: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        connections.spawn(connect(client, server.clone(), delay, cut.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connect(client: TcpStream, server: String, delay: Duration, mut cut: watch::Receiver<bool>) {
    if cut.wait_for(|is_cut| !is_cut).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    // The end of one direction ends the connection.
    tokio::select! {
        () = pass(client_in, server_out, delay, cut.clone()) => {}
        () = pass(server_in, client_out, delay, cut) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    mut cut: watch::Receiver<bool>,
) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(1_000);
    let reading = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + delay, buffer[..read].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some((due, bytes)) = chunks.recv().await {
            sleep_until(due).await;
            if cut.wait_for(|is_cut| !is_cut).await.is_err() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

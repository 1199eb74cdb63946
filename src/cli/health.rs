//! `health`: asks a running hub for its health, such as for a container's health check.
//!
//! It opens no database. The request has a timeout, so a hub that hangs is reported too.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::args::LISTEN;
use super::output::print;
use super::{CommandError, Outcome};

/// The time limit of the connection, and of each part of the answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The most bytes of an answer.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// The settings of `health`.
#[derive(Debug, Args)]
pub(crate) struct HealthSettings {
    /// Where the hub listens; 0.0.0.0 and [::] are asked on the loopback interface
    #[arg(long, env, value_name = "ADDRESS", default_value = LISTEN)]
    pub listen: SocketAddr,
}

/// The parts of the answer that are printed.
#[derive(Debug, Deserialize)]
struct HealthBody {
    status: String,
    reason: Option<String>,
}

/// Why there is no health.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HealthError {
    /// There is no connection, it broke, or the time limit has passed.
    #[error("no hub answers at {0}: {1}")]
    Connection(SocketAddr, io::Error),
    /// What answers is not a hub.
    #[error("what answers at {0} is not a hub")]
    Answer(SocketAddr),
}

/// Prints the health of a running hub. A degraded hub is a problem.
/// Errors: no hub answers in time.
pub(crate) fn health(settings: &HealthSettings) -> Result<Outcome, CommandError> {
    let hub = reachable(settings.listen);
    let answer = request(hub).map_err(|error| HealthError::Connection(hub, error))?;
    let HealthBody { status, reason } = parse(&answer).ok_or(HealthError::Answer(hub))?;
    let is_ok = status == "ok";
    print(reason.map_or(status.clone(), |reason| format!("{status}: {reason}")));
    Ok(if is_ok { Outcome::Success } else { Outcome::Problems })
}

/// The address at which a hub that listens at `listen` can be reached from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, listen.port())
}

/// Sends the request, and returns the answer. In HTTP/1.0 the hub closes the connection after it.
fn request(hub: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&hub, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("GET /health HTTP/1.0\r\nHost: {hub}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LIMIT).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn parse(answer: &str) -> Option<HealthBody> {
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_on_all_interfaces_is_asked_on_the_loopback_interface() {
        let asked = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(asked("[::]:80"), "[::1]:80");
        assert_eq!(asked("192.0.2.1:80"), "192.0.2.1:80");
    }
}

//! `TCP_DEFER_ACCEPT` of `tcp(7)`: accepts a connection when its first bytes have arrived.
//!
//! A new connection then wakes the hub once instead of twice, which saves a twentieth of the CPU of joins and leaves
//! (docs/decisions.md). The only file with `unsafe`: no library has a call for this option.
#![expect(unsafe_code, reason = "see above")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Makes the kernel hold back a connection until its first bytes, at most for a second or two: it is accepted without
/// bytes after the first retransmission of its `SYN-ACK`.
/// Errors: the descriptor is not a TCP listener.
pub(super) fn defer_accept(listener: &impl AsFd) -> io::Result<()> {
    let seconds: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&seconds)).map_err(io::Error::other)?;
    let listener = listener.as_fd();
    // SAFETY: the descriptor is borrowed, so it is open; the kernel reads `length` bytes of `seconds` and keeps no pointer.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connection_is_accepted_when_its_first_bytes_arrive() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        defer_accept(&listener).unwrap();
        let address = listener.local_addr().unwrap();
        let silent = TcpStream::connect(address).unwrap();
        let mut speaks = TcpStream::connect(address).unwrap();
        speaks.write_all(b"G").unwrap();
        let accepted = || listener.accept().unwrap().1;
        assert_eq!(accepted(), speaks.local_addr().unwrap(), "the connection with bytes is first");
        assert_eq!(accepted(), silent.local_addr().unwrap(), "the silent connection follows");
        assert!(defer_accept(&File::open("/dev/null").unwrap()).is_err(), "not a socket");
    }
}

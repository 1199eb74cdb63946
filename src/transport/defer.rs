//! Taking a connection in when its request is there: `TCP_DEFER_ACCEPT` of `tcp(7)`.
//!
//! So whoever comes wakes the hub once and not twice, which is a twentieth of what it costs when people come and go
//! (docs/benchmarks.md). The one file with `unsafe`: no library has a call for this option.
#![expect(unsafe_code, reason = "see above")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Has the kernel wait with a connection for its first bytes, but not longer than a second or two: it comes without
/// them at the first `SYN-ACK` that is sent again.
///
/// # Errors
/// The listener is none.
pub(super) fn defer_accept(listener: &impl AsFd) -> io::Result<()> {
    let seconds: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&seconds)).map_err(io::Error::other)?;
    let listener = listener.as_fd();
    // SAFETY: the descriptor is borrowed and so is open; the kernel reads `length` bytes of `seconds`, and keeps neither.
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
    fn a_connection_is_there_when_its_first_bytes_are() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        defer_accept(&listener).unwrap();
        let address = listener.local_addr().unwrap();
        let silent = TcpStream::connect(address).unwrap();
        let mut speaks = TcpStream::connect(address).unwrap();
        speaks.write_all(b"G").unwrap();
        let accepted = || listener.accept().unwrap().1;
        assert_eq!(accepted(), speaks.local_addr().unwrap(), "whoever says something is first");
        assert_eq!(accepted(), silent.local_addr().unwrap(), "but nobody is left outside");
        assert!(defer_accept(&File::open("/dev/null").unwrap()).is_err(), "it is no socket");
    }
}

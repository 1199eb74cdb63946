//! One HTTP connection with one request at a time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::Outcome;
use crate::swarm::TIMEOUT;

pub(crate) struct Http(BufReader<TcpStream>);

impl Http {
    pub(crate) fn connect(server: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Returns the body of the response. Any status but 200 is an error.
    pub(crate) fn get(&mut self, path: &str) -> Outcome<String> {
        self.0.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: hub\r\n\r\n").as_bytes())?;
        let (mut status, mut line, mut length) = (String::new(), String::new(), 0);
        self.0.read_line(&mut status)?;
        while line != "\r\n" {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(format!("GET {path}: the server closed the connection").into());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        let body = String::from_utf8(body)?;
        if status.starts_with("HTTP/1.1 200 ") {
            Ok(body)
        } else {
            Err(format!("GET {path}: response {} {body}", status.trim()).into())
        }
    }
}

//! The floor: the least that a broadcast and a connection cost on this machine.
//!
//! One thread, one epoll. It answers the handshake, and for each text message it calls `send(2)` once
//! for every open socket, with one frame that is encoded once. It counts nothing and parses no message.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::websocket::{self, ACCEPT, CLOSE, TEXT};
use crate::{Outcome, print_line};

const LISTENER: Token = Token(usize::MAX);

struct Floor {
    poll: Poll,
    /// By token; `None` after the close.
    connections: Vec<Option<Connection>>,
    frame: Vec<u8>,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    is_upgraded: bool,
    unread: Vec<u8>,
}

/// Serves frames of `frame` bytes until the process is killed.
pub(crate) fn run(frame: usize) -> Outcome {
    let mut listener = listen()?;
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    print_line(format_args!("the floor listens at http://{}/", listener.local_addr()?));
    let frame = websocket::text_frame(frame);
    let mut floor = Floor { poll, connections: Vec::new(), frame, buffer: vec![0; 4096] };
    let mut events = Events::with_capacity(1024);
    loop {
        floor.poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER { floor.accept(&listener)? } else { floor.read(event)? }
        }
    }
}

/// A listener whose backlog holds a whole storm; mio's own is 1,024, and Linux drops what is beyond.
fn listen() -> Outcome<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener) -> Outcome {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let token = Token(self.connections.len());
            self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
            self.connections.push(Some(Connection { stream, is_upgraded: false, unread: Vec::new() }));
        }
    }

    fn read(&mut self, event: &Event) -> Outcome {
        let Token(index) = event.token();
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        let mut texts = 0;
        loop {
            match connection.stream.read(&mut self.buffer) {
                Ok(read) if read > 0 => connection.unread.extend_from_slice(&self.buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                _ => {
                    self.connections[index] = None;
                    return Ok(());
                }
            }
        }
        if !connection.is_upgraded
            && let Some(head) = websocket::head_length(&connection.unread)
        {
            connection.unread.drain(..head);
            connection.is_upgraded = true;
            let response = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
            );
            connection.stream.write_all(&[response.as_bytes(), &self.frame].concat())?;
        }
        while let Some(frame) = websocket::first_frame(&connection.unread)? {
            let (opcode, length) = (frame.opcode, frame.length);
            texts += usize::from(opcode == TEXT);
            connection.unread.drain(..length);
            if opcode == CLOSE {
                self.connections[index] = None;
                break;
            }
        }
        for _ in 0..texts {
            self.broadcast()?;
        }
        Ok(())
    }

    fn broadcast(&mut self) -> Outcome {
        // A frame before the response to the upgrade would not be valid.
        for connection in self.connections.iter_mut().flatten().filter(|connection| connection.is_upgraded) {
            if connection.stream.write(&self.frame)? < self.frame.len() {
                return Err("a socket accepted only a part of a frame".into());
            }
        }
        Ok(())
    }
}

//! The floor: what fan-out costs when a program does nothing else.
//!
//! One thread, one epoll. It answers the handshake, and for each text message it calls `send(2)` once
//! for every member, with one frame that was made before. It counts nobody and understands nothing.

use std::io::{ErrorKind, Read, Write};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::websocket::{self, ACCEPT, CLOSE, TEXT};
use crate::{Outcome, say};

const LISTENER: Token = Token(usize::MAX);

struct Floor {
    poll: Poll,
    members: Vec<Option<Member>>,
    frame: Vec<u8>,
    buffer: Vec<u8>,
}

struct Member {
    stream: TcpStream,
    is_open: bool,
    unread: Vec<u8>,
}

/// Serves until it is killed, with frames of so many bytes.
pub(crate) fn run(frame: usize) -> Outcome {
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    say(format_args!("the floor is open at http://{}/", listener.local_addr()?));
    let frame = websocket::ready_text(frame);
    let mut floor = Floor { poll, members: Vec::new(), frame, buffer: vec![0; 4096] };
    let mut events = Events::with_capacity(1024);
    loop {
        floor.poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER { floor.accept(&listener)? } else { floor.read(event)? }
        }
    }
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
            let token = Token(self.members.len());
            self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
            self.members.push(Some(Member { stream, is_open: false, unread: Vec::new() }));
        }
    }

    fn read(&mut self, event: &Event) -> Outcome {
        let Token(who) = event.token();
        let Some(member) = &mut self.members[who] else { return Ok(()) };
        let mut texts = 0;
        loop {
            match member.stream.read(&mut self.buffer) {
                Ok(read) if read > 0 => member.unread.extend_from_slice(&self.buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                _ => {
                    self.members[who] = None;
                    return Ok(());
                }
            }
        }
        if !member.is_open
            && let Some(head) = websocket::head(&member.unread)
        {
            member.unread.drain(..head);
            member.is_open = true;
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
            );
            member.stream.write_all(&[answer.as_bytes(), &self.frame].concat())?;
        }
        while let Some(frame) = websocket::first_frame(&member.unread)? {
            let (opcode, length) = (frame.opcode, frame.length);
            texts += usize::from(opcode == TEXT);
            member.unread.drain(..length);
            if opcode == CLOSE {
                self.members[who] = None;
                break;
            }
        }
        for _ in 0..texts {
            self.tell_all()?;
        }
        Ok(())
    }

    fn tell_all(&mut self) -> Outcome {
        for member in self.members.iter_mut().flatten() {
            if member.stream.write(&self.frame)? < self.frame.len() {
                return Err("a socket did not take a whole frame".into());
            }
        }
        Ok(())
    }
}

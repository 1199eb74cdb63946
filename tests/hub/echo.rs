//! The frame path from socket to socket: the echo example, which Autobahn tests too, sends back each message.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::task::AbortOnDropHandle;

use crate::support::TIMEOUT;

#[path = "../../examples/echo.rs"]
#[expect(dead_code, reason = "a test needs no main")]
mod example;

const MIB: usize = 1024 * 1024;

/// A running echo server. It stops when this is dropped.
struct Echo {
    address: SocketAddr,
    _served: AbortOnDropHandle<std::io::Result<()>>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, _served: AbortOnDropHandle::new(tokio::spawn(example::serve(listener))) }
    }

    async fn client(&self) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        connect_async(format!("ws://{}/any/path", self.address)).await.unwrap().0
    }

    /// Opens a socket: the handshake is done, and no frame is sent.
    async fn raw(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(TIMEOUT, stream.read_u8()).await.unwrap().unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        stream
    }

    /// Sends these bytes one by one, and returns all bytes of the server up to the end of the connection.
    async fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let (mut reading, mut writing) = self.raw().await.into_split();
        let write = async {
            for byte in bytes {
                // The server may close before the last byte.
                if writing.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
            writing
        };
        let mut answer = Vec::new();
        let (_writing, read) = tokio::join!(write, timeout(TIMEOUT, reading.read_to_end(&mut answer)));
        read.expect("the end in time").unwrap();
        answer
    }
}

/// A frame of a client.
fn masked(opcode: OpCode, payload: &[u8], is_final: bool) -> Vec<u8> {
    frame(
        FrameHeader { is_final, opcode, mask: Some([0x37, 0xfa, 0x21, 0x3d]), ..FrameHeader::default() },
        payload,
    )
}

/// A frame of the hub.
fn plain(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    frame(FrameHeader { opcode, ..FrameHeader::default() }, payload)
}

fn frame(header: FrameHeader, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Frame::from_payload(header, payload.to_vec().into()).format(&mut bytes).unwrap();
    bytes
}

const TEXT: OpCode = OpCode::Data(Data::Text);
const BINARY: OpCode = OpCode::Data(Data::Binary);
const CONTINUE: OpCode = OpCode::Data(Data::Continue);
const CLOSE: OpCode = OpCode::Control(Control::Close);
const PING: OpCode = OpCode::Control(Control::Ping);
const PONG: OpCode = OpCode::Control(Control::Pong);

fn closing(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

#[tokio::test]
async fn messages_of_every_length_class_are_echoed() {
    let echo = Echo::start().await;
    let mut client = echo.client().await;
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537, MIB, 16 * MIB] {
        for message in [Message::text("x".repeat(length)), Message::binary(vec![0xfe; length])] {
            client.send(message.clone()).await.unwrap();
            let back = timeout(TIMEOUT, client.next()).await.unwrap().unwrap().unwrap();
            assert!(back == message, "{length} bytes came back as {}", back.len());
        }
    }
}

#[tokio::test]
async fn pipelined_messages_are_echoed_in_order() {
    let echo = Echo::start().await;
    let (mut sink, mut stream) = echo.client().await.split();
    let send = async {
        for number in 0..2_000 {
            sink.feed(Message::text(format!("{number} {}", "x".repeat(number)))).await.unwrap();
        }
        sink.flush().await.unwrap();
    };
    let receive = async {
        for number in 0..2_000 {
            let back = timeout(TIMEOUT, stream.next()).await.unwrap().unwrap().unwrap();
            assert_eq!(back.into_text().unwrap(), format!("{number} {}", "x".repeat(number)));
        }
    };
    tokio::join!(send, receive);
}

#[tokio::test]
async fn fragments_are_joined_and_pings_between_them_are_answered() {
    let echo = Echo::start().await;
    let text = "κόσμε, 🧘".as_bytes();
    let mut sent = masked(TEXT, &text[..1], false);
    for byte in &text[1..text.len() - 1] {
        sent.extend(masked(PING, &[*byte], true));
        sent.extend(masked(CONTINUE, &[*byte], false));
    }
    sent.extend(masked(CONTINUE, &text[text.len() - 1..], true));
    sent.extend(masked(CLOSE, &closing(1000, b"bye"), true));
    let mut expected: Vec<u8> =
        text[1..text.len() - 1].iter().flat_map(|byte| plain(PONG, &[*byte])).collect();
    expected.extend(plain(TEXT, text));
    expected.extend(plain(CLOSE, &closing(1000, b"bye")));
    assert_eq!(echo.answer(&sent).await, expected);
}

#[tokio::test]
async fn close_is_answered_with_its_code_or_1002() {
    let echo = Echo::start().await;
    let answered = async |payload: &[u8]| echo.answer(&masked(CLOSE, payload, true)).await;
    assert_eq!(answered(b"").await, plain(CLOSE, b""));
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let payload = closing(code, "☯".as_bytes());
        assert_eq!(answered(&payload).await, plain(CLOSE, &payload), "{code}");
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let answer = answered(&closing(code, b"")).await;
        assert_eq!((answer[0], &answer[2..4]), (0x88, &1002_u16.to_be_bytes()[..]), "{code}");
    }
}

#[tokio::test]
async fn protocol_error_closes_with_code_after_earlier_messages() {
    let echo = Echo::start().await;
    let long = [b'x'; 126];
    let bad_close = closing(1000, &[0xff]);
    let cases = [
        (vec![0xc1, 0x80, 0, 0, 0, 0], 1002), // a reserved bit
        (vec![0x83, 0x80, 0, 0, 0, 0], 1002), // a reserved opcode
        (vec![0x8b, 0x80, 0, 0, 0, 0], 1002), // a reserved control
        (vec![0x81, 0x02, b'h', b'i'], 1002), // not masked
        (masked(CONTINUE, b"x", true), 1002), // a continuation without a first fragment
        ([masked(TEXT, b"x", false), masked(TEXT, b"y", true)].concat(), 1002),
        (masked(PING, b"x", false), 1002),
        (masked(PING, &long, true), 1002),
        (masked(CLOSE, &[3], true), 1002),
        (masked(CLOSE, &bad_close, true), 1007),
        (masked(TEXT, b"\xed\xa0\x80", true), 1007), // half a surrogate pair
        (masked(TEXT, b"\xc0\xaf", true), 1007),     // an overlong encoding
        ([masked(TEXT, b"\xf4", false), masked(CONTINUE, b"\x90", false)].concat(), 1007), // detected before the end of the message
        (vec![0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0], 1009), // the header of a frame of 16 MiB + 1 B
    ];
    for (bytes, code) in cases {
        let sent = [masked(BINARY, b"good", true), bytes.clone()].concat();
        let answer = echo.answer(&sent).await;
        let close = answer.strip_prefix(&plain(BINARY, b"good")[..]).unwrap();
        assert_eq!((close[0], &close[2..4]), (0x88, &u16::to_be_bytes(code)[..]), "{bytes:x?}");
    }
}

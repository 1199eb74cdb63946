//! An HTTP request and its response. Each response is checked against the contract.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::contract::HTTP;
use super::{ADMIN_TOKEN, TIMEOUT};

pub struct Request {
    address: String,
    request: hyper::Request<Full<Bytes>>,
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Request {
    pub fn new(address: &str, method: &str, path: &str) -> Self {
        let request = hyper::Request::builder().method(method).uri(path).header("host", address);
        Self { address: address.to_owned(), request: request.body(Full::default()).unwrap() }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let (name, value) = (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self.request.headers_mut().insert(name, value);
        self
    }

    pub fn admin(self) -> Self {
        self.header("authorization", &format!("Bearer {ADMIN_TOKEN}"))
    }

    /// Adds the headers of a WebSocket upgrade (RFC 6455).
    pub fn upgrade(self) -> Self {
        self.header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    pub fn without(mut self, name: &str) -> Self {
        self.request.headers_mut().remove(name);
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        *self.request.body_mut() = Full::new(body.into());
        self
    }

    pub async fn send(self) -> Response {
        timeout(TIMEOUT, self.try_send()).await.expect("a response in time").unwrap()
    }

    pub async fn try_send(self) -> Result<Response, Box<dyn std::error::Error>> {
        let stream = TcpStream::connect(&self.address).await?;
        let (method, path) = (self.request.method().to_string(), self.request.uri().to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection.with_upgrades());
        let reply = sender.send_request(self.request).await?;
        let (head, body) = reply.into_parts();
        let body = body.collect().await?.to_bytes();
        connection.abort();
        let text = String::from_utf8(body.into())?;
        let response = Response { status: head.status.as_u16(), headers: head.headers, text };
        HTTP.expect(&method, &path, &response);
        Ok(response)
    }
}

/// A keep-alive connection.
pub struct Connection {
    address: String,
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Connection {
    pub async fn open_database(address: &str) -> Self {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (sender, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self { address: address.to_owned(), sender }
    }

    /// Returns the sum of a metric over its labels.
    pub async fn metric(&mut self, name: &str) -> f64 {
        let Request { request, .. } = Request::new(&self.address, "GET", "/metrics").admin();
        let response = timeout(TIMEOUT, self.sender.send_request(request)).await.expect("a response in time");
        let page = response.unwrap().into_body().collect().await.unwrap().to_bytes();
        super::metric(std::str::from_utf8(&page).unwrap(), name)
    }
}

impl Response {
    /// Returns the JSON body of a response that must have this status.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        serde_json::from_str(&self.text).unwrap()
    }

    /// Returns the message of an error that must have this status and code.
    pub fn expect_error(&self, status: u16, code: &str) -> String {
        let body = self.expect(status);
        assert_eq!(body["error"]["code"], code, "{body}");
        body["error"]["message"].as_str().unwrap().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

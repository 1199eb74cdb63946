//! Another hub, which `join` and `check --with` ask: requests of the admin over HTTP or HTTPS.
//!
//! Each request has its own connection. Redirects are not followed, since they would get the admin token.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use url::Url;

use crate::auth::Secret;

/// The time limit of a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest TCP segment, in bytes. One of loopback is as large as a hub's send buffer, and would wait for a delayed ACK
/// each time: a snapshot arrived at 2 MB/s.
const SEGMENT: u32 = 1_440;

/// The time limit of an answer's head. A hub copies its database before it answers.
const HEAD_TIMEOUT: Duration = Duration::from_mins(30);

/// The time limit of each part of a body.
const PART_TIMEOUT: Duration = Duration::from_mins(1);

/// The most bytes of a JSON body. The sums of a hundred years are 80 KB.
const JSON_LIMIT: usize = 1024 * 1024;

/// Another hub, and the admin token.
#[derive(Debug)]
pub(super) struct OtherHub {
    url: Url,
    token: Secret,
}

/// Another hub does not answer as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OtherHubError {
    /// The URL is not that of a hub.
    #[error("{0}: must be the URL of a hub, such as http://node-a:8080")]
    Url(String),
    /// The connection is not encrypted by this build.
    #[cfg(not(feature = "cluster"))]
    #[error(
        "{0}: this build has no HTTPS; use http in a private network, or build it with the feature `cluster`"
    )]
    Tls(Url),
    /// There is no connection, or it broke.
    #[error("{0}: {1}")]
    Connection(Url, io::Error),
    /// The hub took too long.
    #[error("{0}: it does not answer in time")]
    Timeout(Url),
    /// The hub rejected the request.
    #[error("{url} answers {status}: {message}")]
    Rejected {
        /// The URL of the request.
        url: Url,
        /// The status code.
        status: u16,
        /// The hub's message.
        message: String,
    },
    /// What answers is not a hub of this version.
    #[error("{0}: what answers is not a hub of this version")]
    Answer(Url),
    /// The file is not what the hub sent.
    #[error("{0}: the file has not arrived as it was sent: try again")]
    Digest(Url),
}

/// An error answer.
#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Debug, Deserialize)]
struct ErrorDetail {
    message: String,
}

impl OtherHub {
    /// The hub at a URL.
    /// Errors: the URL is not that of a hub.
    pub(super) fn new(url: &str, token: Secret) -> Result<Self, OtherHubError> {
        let bad = || OtherHubError::Url(url.to_owned());
        let url = Url::parse(url).map_err(|_| bad())?;
        let is_plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        match url.scheme() {
            "http" | "https" if url.has_host() && is_plain => Ok(Self { url, token }),
            _ => Err(bad()),
        }
    }

    /// The URL.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Asks for JSON.
    /// Errors: the hub does not answer, or not with that.
    pub(super) async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, OtherHubError> {
        let url = self.at(path);
        let mut answer = self.get(&url).await?;
        let body = read(&url, answer.body_mut(), JSON_LIMIT).await?;
        serde_json::from_slice(&body).map_err(|_| OtherHubError::Answer(url))
    }

    /// Asks for a file.
    /// Errors: the hub does not answer, or not with a file.
    pub(super) async fn file(&self, path: &str) -> Result<Download, OtherHubError> {
        const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
        let url = self.at(path);
        let answer = self.get(&url).await?;
        let header = |name| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
        let bytes = header(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let (Some(bytes), Some(digest)) = (bytes, header(REPR_DIGEST)) else {
            return Err(OtherHubError::Answer(url));
        };
        Ok(Download { url, body: answer.into_body(), bytes, digest, hash: Sha256::new() })
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        url
    }

    async fn get(&self, url: &Url) -> Result<Response<Incoming>, OtherHubError> {
        let broken = |error: hyper::Error| OtherHubError::Connection(url.clone(), io::Error::other(error));
        let stream = timeout(CONNECT_TIMEOUT, connect(url)).await;
        let stream = stream.map_err(|_| OtherHubError::Timeout(url.clone()))??;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the answer, whose body reports its errors.
        tokio::spawn(connection);
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let request = Request::get(&url[url::Position::BeforePath..])
            .header(HOST, authority)
            .header(AUTHORIZATION, format!("Bearer {}", self.token.reveal()))
            .body(Empty::<Bytes>::new())
            .map_err(|_| OtherHubError::Url(url.to_string()))?;
        let answer = timeout(HEAD_TIMEOUT, sender.send_request(request)).await;
        let mut answer = answer.map_err(|_| OtherHubError::Timeout(url.clone()))?.map_err(broken)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = read(url, answer.body_mut(), JSON_LIMIT).await?;
        let message = serde_json::from_slice(&body).map(|ErrorBody { error }| error.message);
        let message = message.unwrap_or_else(|_| status.canonical_reason().unwrap_or_default().to_owned());
        Err(OtherHubError::Rejected { url: url.clone(), status: status.as_u16(), message })
    }
}

/// A file that is being fetched.
#[derive(Debug)]
pub(super) struct Download {
    url: Url,
    body: Incoming,
    bytes: u64,
    /// The digest that the file should have, as the header has it.
    digest: String,
    hash: Sha256,
}

impl Download {
    /// The size in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the next part; none at the end.
    /// Errors: the connection broke, or the file is not what the hub sent.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, OtherHubError> {
        if let Some(part) = next(&self.url, &mut self.body).await? {
            self.hash.update(&part);
            return Ok(Some(part));
        }
        let hash = BASE64.encode(&std::mem::take(&mut self.hash).finalize());
        let is_same = self.digest == format!("sha-256=:{hash}:");
        if is_same { Ok(None) } else { Err(OtherHubError::Digest(self.url.clone())) }
    }
}

/// Returns the next part of a body; none at the end.
async fn next(url: &Url, body: &mut Incoming) -> Result<Option<Bytes>, OtherHubError> {
    loop {
        let frame = timeout(PART_TIMEOUT, body.frame()).await;
        let Some(frame) = frame.map_err(|_| OtherHubError::Timeout(url.clone()))? else { return Ok(None) };
        let frame = frame.map_err(|error| OtherHubError::Connection(url.clone(), io::Error::other(error)))?;
        if let Ok(part) = frame.into_data() {
            return Ok(Some(part));
        }
    }
}

async fn read(url: &Url, body: &mut Incoming, limit: usize) -> Result<Vec<u8>, OtherHubError> {
    let mut all = Vec::new();
    while let Some(part) = next(url, body).await? {
        all.extend_from_slice(&part);
        if all.len() > limit {
            return Err(OtherHubError::Answer(url.clone()));
        }
    }
    Ok(all)
}

#[cfg(feature = "cluster")]
use tls::connect;

#[cfg(not(feature = "cluster"))]
async fn connect(url: &Url) -> Result<TcpStream, OtherHubError> {
    if url.scheme() == "https" {
        return Err(OtherHubError::Tls(url.clone()));
    }
    tcp(url).await.map_err(|error| OtherHubError::Connection(url.clone(), error))
}

/// Connects with segments that are as small as on a network: see [`SEGMENT`].
async fn tcp(url: &Url) -> io::Result<TcpStream> {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let mut failed = io::ErrorKind::NotFound.into();
    for address in lookup_host((host, url.port_or_known_default().unwrap_or(80))).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// HTTPS with the certificates that the system trusts.
#[cfg(feature = "cluster")]
mod tls {
    use std::sync::Arc;

    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::aws_lc_rs;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::{OtherHubError, Url, io, tcp};

    /// A connection, encrypted or not.
    pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

    impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

    pub(super) async fn connect(url: &Url) -> Result<Box<dyn Stream>, OtherHubError> {
        let connected = async {
            let stream = tcp(url).await?;
            if url.scheme() != "https" {
                return Ok(Box::new(stream) as Box<dyn Stream>);
            }
            let mut roots = RootCertStore::empty();
            // Certificates that cannot be read or parsed are no roots: without any, each connection fails.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
            let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?;
            let config = config.with_root_certificates(roots).with_no_client_auth();
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        };
        connected.await.map_err(|error: io::Error| OtherHubError::Connection(url.clone(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_of_a_hub_is_an_http_url_without_query_or_name() {
        let hub = |url: &str| OtherHub::new(url, Secret::from("a token".to_owned()));
        for (url, at) in [
            ("http://node-a:8080", "http://node-a:8080/replica"),
            ("http://node-a:8080/", "http://node-a:8080/replica"),
            ("https://example.org/hub/", "https://example.org/hub/replica"),
            ("http://[::1]:80", "http://[::1]/replica"),
        ] {
            assert_eq!(hub(url).unwrap().at("/replica").as_str(), at);
        }
        for bad in ["", "node-a:8080", "ws://node-a", "http://", "http://node-a/?x=1", "http://me@node-a"] {
            assert!(matches!(hub(bad), Err(OtherHubError::Url(_))), "{bad}");
        }
    }

    #[tokio::test]
    async fn segments_are_small_also_over_loopback() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let stream = tcp(&url).await.unwrap();
        assert!(SockRef::from(&stream).tcp_mss().unwrap() <= SEGMENT);
    }
}

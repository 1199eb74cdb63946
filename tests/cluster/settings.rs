//! The settings of a node: wrong ones stop the start with one line, and good ones connect with a password, credentials or TLS.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use uuid::Uuid;

use crate::nats::Nats;
use crate::support::{ADMIN_TOKEN, Program};

const PROGRAM: &str = env!("CARGO_BIN_EXE_breathing-room");

#[tokio::test]
async fn wrong_settings_stop_the_start_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}/hub.db", folder.path().display());
    let broken = folder.path().join("broken.creds");
    std::fs::write(&broken, "no credentials").unwrap();
    let good = ("NATS_URL", "nats://127.0.0.1:9");
    for (settings, words) in [
        (vec![("NATS_URL", "127.0.0.1:9")], "NATS_URL: must be addresses"),
        (vec![("NATS_URL", "nats://ann:the-password@127.0.0.1:9,http://x")], "NATS_URL: must be addresses"),
        (vec![good, ("ADMIN_TOKEN", "")], "NATS_URL: needs ADMIN_TOKEN"),
        (vec![good, ("NODE", "a node")], "NODE: must be"),
        (vec![good, ("CLUSTER", "a.*")], "CLUSTER: must be"),
        (vec![good, ("NATS_CREDS", "/nowhere/file")], "NATS_CREDS: cannot read /nowhere/file"),
        (vec![good, ("NATS_CREDS", broken.to_str().unwrap())], "has no user JWT and no seed"),
        (vec![("NATS_CREDS", "/nowhere/file")], "NATS_CREDS: needs NATS_URL"),
    ] {
        let mut command = tokio::process::Command::new(PROGRAM);
        let location =
            [("DATABASE_URL", database.as_str()), ("LISTEN", "127.0.0.1:0"), ("RUST_LOG", "error")];
        command.env_clear().env("ADMIN_TOKEN", ADMIN_TOKEN).envs(location).envs(settings.iter().copied());
        if settings.contains(&("ADMIN_TOKEN", "")) {
            command.env_remove("ADMIN_TOKEN");
        }
        let output = command.kill_on_drop(true).output().await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), text.trim_end().lines().count()),
            (Some(1), 1),
            "{settings:?}: {text}"
        );
        assert!(text.contains(words) && !text.contains("the-password"), "{settings:?}: {text}");
    }
}

/// Starts a hub and waits until it hears itself.
async fn expect_connected(folder: &Path, settings: &[(&str, &str)]) {
    let hub = Program::start_with_log(folder, &[&[("RUST_LOG", "info")], settings].concat()).await;
    let is_connected = async || hub.get("/cluster").admin().send().await.expect(200)["state"] == "ok";
    crate::support::eventually(is_connected, "the hub hears itself").await;
}

#[tokio::test]
async fn password_is_a_part_of_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start(1, &["--user", "ann", "--pass", "the-password"]).await;
    let url = format!("nats://ann:the-password@{}", nats.address(0));
    expect_connected(folder.path(), &[("NATS_URL", &url)]).await;
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("connected to NATS") && !log.contains("the-password"), "{log}");
}

#[tokio::test]
async fn credentials_are_those_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/credentials");
    let nats = Nats::start(1, &["--config", credentials.join("server.conf").to_str().unwrap()]).await;
    let url = format!("nats://{}", nats.address(0));
    let file = credentials.join("hub.creds");
    expect_connected(folder.path(), &[("NATS_URL", &url), ("NATS_CREDS", file.to_str().unwrap())]).await;
}

/// A key and a certificate for `localhost`, as files in a folder. None where the system has no openssl.
fn certificate(folder: &Path) -> Option<[String; 2]> {
    let files = ["key.pem", "certificate.pem"].map(|name| folder.join(name).to_str().unwrap().to_owned());
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &files[0], "-out", &files[1]])
        .output();
    if made.is_ok_and(|output| output.status.success()) {
        return Some(files);
    }
    crate::support::skip("no openssl");
    None
}

#[tokio::test]
async fn tls_is_checked_with_the_authorities_of_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let Some([key, certificate]) = certificate(folder.path()) else { return };
    let nats = Nats::start(1, &["--tls", "--tlscert", &certificate, "--tlskey", &key]).await;
    let url = format!("tls://localhost:{}", nats.address(0).rsplit(':').next().unwrap());
    // The variable names the authorities of the system.
    expect_connected(folder.path(), &[("NATS_URL", &url), ("SSL_CERT_FILE", &certificate)]).await;
}

/// Listens for HTTPS, and passes it on to a hub as a proxy does. Returns the port.
async fn https_proxy(hub: &str, [key, certificate]: &[String; 2]) -> u16 {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let (certificate, key) =
        (CertificateDer::from_pem_file(certificate).unwrap(), PrivateKeyDer::from_pem_file(key).unwrap());
    let config = config.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let (acceptor, hub) = (TlsAcceptor::from(Arc::new(config)), hub.to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            // A client that does not trust the certificate ends the handshake.
            let Ok(mut client) = acceptor.accept(client).await else { continue };
            let mut server = TcpStream::connect(&hub).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await; // until one of them ends it
        }
    });
    port
}

#[tokio::test]
async fn join_over_https_trusts_the_authorities_of_the_system_only() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(files) = certificate(old.path()) else { return };
    let hub = Program::start(old.path(), &[]).await;
    let view = json!({ "id": Uuid::now_v7(), "visitor": "ann", "room": "lobby", "path": "/" });
    hub.post("/page-view?durable=true").json(&view).send().await.expect(200);
    let from = format!("https://localhost:{}", https_proxy(&hub.address, &files).await);
    let database = format!("sqlite://{}/hub.db", new.path().display());
    let run = async |arguments: &[&str], authorities: &str| {
        Program::run(arguments, &[("DATABASE_URL", &database), ("SSL_CERT_FILE", authorities)]).await
    };
    // Its certificate is of another authority.
    let other = tempfile::tempdir().unwrap();
    let [_, unknown] = certificate(other.path()).unwrap();
    let refused = run(&["join", &from], &unknown).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("certificate"), "{refused:?}");
    assert!(!new.path().join("hub.db").exists(), "nothing is left");
    let joined = run(&["join", &from], &files[1]).await;
    assert_eq!(joined.code, Some(0), "{joined:?}");
    let agrees = run(&["check", "--with", &from], &files[1]).await;
    assert_eq!(agrees.code, Some(0), "{agrees:?}");
}

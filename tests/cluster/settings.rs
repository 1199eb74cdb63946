//! The settings of a node: wrong ones stop the start with one line, and good ones connect with a password, credentials or TLS.

use std::path::Path;

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

#[tokio::test]
async fn tls_is_checked_with_the_authorities_of_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, certificate) = (file("key.pem"), file("certificate.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &key, "-out", &certificate])
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        crate::support::skip("no openssl");
        return;
    }
    let nats = Nats::start(1, &["--tls", "--tlscert", &certificate, "--tlskey", &key]).await;
    let url = format!("tls://localhost:{}", nats.address(0).rsplit(':').next().unwrap());
    // The variable names the authorities of the system.
    expect_connected(folder.path(), &[("NATS_URL", &url), ("SSL_CERT_FILE", &certificate)]).await;
}

//! The hub inside the server of another program: `examples/embed.rs`, on real sockets.

#[path = "../../examples/embed.rs"]
#[expect(dead_code, reason = "its `main` runs elsewhere")]
mod example;

use breathing_room::Config;
use futures_util::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn embedded_hub_opens_sockets_under_its_path_and_shuts_down_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.history.database_url = format!("sqlite://{}/hub.db", folder.path().display());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(example::run(listener, config, async move {
        let _ = stopped.await;
    }));

    let url = format!("ws://{address}/hub/rooms/lobby/socket?visitor=ann");
    let (mut socket, _) = connect_async(url).await.unwrap();
    let welcome = socket.next().await.unwrap().unwrap();
    assert!(welcome.to_text().unwrap().contains("\"present\":1"), "{welcome}");
    let (other, _) =
        connect_async(format!("ws://{address}/hub/rooms/lobby/socket?visitor=bob")).await.unwrap();
    let state = socket.next().await.unwrap().unwrap();
    assert!(state.to_text().unwrap().contains("\"present\":2"), "{state}");

    drop(stop);
    let end = loop {
        if let Message::Close(Some(end)) = socket.next().await.unwrap().unwrap() {
            break end;
        }
    };
    assert_eq!(u16::from(end.code), 1012);
    drop((socket, other));
    running.await.unwrap().unwrap();
}

//! What a browser gets over a real port, and how seldom the owner draws.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::server::dashboard::http::serve_to;

const SAMPLE: &str = include_str!("../../../tests/dashboard/sample.json");

fn picture(at: u64, version: u64) -> Picture {
    let sample: Picture = serde_json::from_str(SAMPLE).unwrap();
    Picture { at_ms: Timestamp(at), version, ..sample }
}

/// A dashboard that is served to so many readers, at version 1.
fn served(readers_max: usize) -> (Dashboard, SocketAddr) {
    let dashboard = Dashboard::new(true);
    dashboard.show(Timestamp(0), || picture(0, 1));
    let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_to(listener, dashboard.pictures(), readers_max));
    (dashboard, address)
}

/// Sends a request; what comes is read from the stream.
async fn ask(address: SocketAddr, method: &str, path: &str, host: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// A whole answer.
async fn answer(address: SocketAddr, method: &str, path: &str, host: &str) -> String {
    let mut text = String::new();
    ask(address, method, path, host).await.read_to_string(&mut text).await.unwrap();
    text
}

/// Reads until something was said; a test that hangs fails.
async fn until(stream: &mut TcpStream, said: &str) -> String {
    let mut text = String::new();
    let reading = async {
        while !text.contains(said) {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "it ended with {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    };
    timeout(Duration::from_secs(20), reading).await.expect("it is said");
    text
}

#[tokio::test]
async fn a_reader_gets_the_picture_at_once_and_every_change_after() {
    let (dashboard, address) = served(4);
    let mut reader = ask(address, "GET", "/events", "localhost").await;
    let first = until(&mut reader, "\"version\":1,").await;
    assert!(first.contains("content-type: text/event-stream"), "{first}");
    assert!(first.contains("cache-control: no-store"), "{first}");
    assert!(first.contains("event: picture"), "{first}");
    dashboard.show(Timestamp(1_000), || picture(1_000, 2));
    until(&mut reader, "\"version\":2,").await;
    let now = answer(address, "GET", "/picture.json", "localhost").await;
    assert!(now.contains("\"version\":2,") && now.contains("cache-control: no-store"), "{now}");
    drop(dashboard);
    let mut rest = String::new();
    timeout(Duration::from_secs(20), reader.read_to_string(&mut rest)).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn every_answer_says_what_a_browser_may_do_with_it() {
    let (_dashboard, address) = served(4);
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
        ("/picture.json", "application/json"),
    ] {
        let answer = answer(address, "GET", path, "127.0.0.1:80").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.contains(&format!("content-type: {kind}")), "{path}: {answer}");
        assert!(answer.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{path}");
        assert!(answer.contains("x-content-type-options: nosniff"), "{path}");
        assert!(answer.contains("referrer-policy: no-referrer"), "{path}");
    }
    let missing = answer(address, "GET", "/../etc/passwd", "localhost").await;
    assert!(missing.starts_with("HTTP/1.1 404") && missing.contains("content-security-policy"), "{missing}");
    let head = answer(address, "HEAD", "/", "localhost").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn a_name_that_is_not_this_machine_is_refused() {
    let (_dashboard, address) = served(4);
    for host in ["evil.example", "evil.example:9465", "localhost.evil.example", "10.0.0.1", "localhost@evil", ""] {
        let answer = answer(address, "GET", "/picture.json", host).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{host}: {answer}");
        assert!(!answer.contains("version\":"), "{host} is told nothing");
        assert!(answer.contains(&format!("open http://{address}/")), "{answer}");
    }
    for host in ["localhost", "LOCALHOST:9465", "127.0.0.1:1", "127.1.2.3", "[::1]:9465"] {
        let answer = answer(address, "GET", "/picture.json", host).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
    }
}

#[tokio::test]
async fn nothing_but_reading_is_possible() {
    let (_dashboard, address) = served(4);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = answer(address, method, "/picture.json", "localhost").await;
        assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"), "{answer}");
    }
}

#[tokio::test]
async fn a_reader_too_many_is_told_so_until_another_leaves() {
    let (dashboard, address) = served(2);
    let mut readers = Vec::new();
    for _ in 0..2 {
        let mut reader = ask(address, "GET", "/events", "localhost").await;
        until(&mut reader, "\"version\":1,").await;
        readers.push(reader);
    }
    let refused = answer(address, "GET", "/events", "localhost").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("2 readers watch the run already"), "{refused}");
    readers.pop();
    let mut version = 1;
    timeout(Duration::from_secs(20), async {
        // That a reader has left is noticed when it is written to.
        loop {
            version += 1;
            dashboard.show(Timestamp(version * 1_000), || picture(0, version));
            let mut reader = ask(address, "GET", "/events", "localhost").await;
            let mut status = [0; 12];
            reader.read_exact(&mut status).await.unwrap();
            if status.ends_with(b"200") {
                break;
            }
        }
    })
    .await
    .expect("there is room again");
}

#[test]
fn what_comes_too_soon_is_drawn_when_it_is_due() {
    let dashboard = Dashboard::new(true);
    let mut pictures = dashboard.pictures();
    let drawn = Cell::new(0);
    let mut show = |now, version| {
        dashboard.show(Timestamp(now), || {
            drawn.set(drawn.get() + 1);
            picture(now, version)
        });
        let changed = pictures.has_changed().unwrap();
        let text = pictures.borrow_and_update().to_string();
        changed.then(|| serde_json::from_str::<Picture>(&text).unwrap().version)
    };
    assert_eq!(show(1_000, 1), Some(1));
    assert_eq!((show(1_499, 2), dashboard.due()), (None, Some(Timestamp(1_500))));
    assert_eq!((show(1_500, 2), dashboard.due()), (Some(2), None));
    assert_eq!(drawn.get(), 2, "what is not shown is not drawn");
    assert_eq!(show(9_000, 2), None, "nothing but the time is other");
    assert_eq!(show(100, 3), Some(3), "the clock was set back");
}

#[test]
fn nothing_is_drawn_that_nobody_can_see() {
    let dashboard = Dashboard::new(false);
    dashboard.show(Timestamp(1_000), || unreachable!("nobody looks"));
    assert_eq!(dashboard.due(), None);
}

//! A frame that claims gigabytes and sends nothing costs nothing.
//!
//! Alone in its process, because it watches the peak of the process's address space: a buffer of
//! the claimed length would raise it, touched or not.

#![cfg(target_os = "linux")]

use std::net::SocketAddr;

use packfed_protocol::quic::{client, read_message, server};
use packfed_protocol::{FrameHeader, FrameType, Identity, Limits, RejectionCode};

const CLAIMED_BYTES: u32 = 3 << 30;

/// The most address space that this process ever had, in bytes.
fn address_space_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("linux has /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("the peak is listed");
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("the peak is a number");
    kib * 1024
}

#[tokio::test]
async fn a_bomb_is_not_allocated() {
    let coordinator = Identity::from_seed([1; 32]);
    let server = server(&coordinator, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let client = client(&Identity::from_seed([2; 32])).unwrap();
    let accept = async { server.accept().await.unwrap().await.unwrap() };
    let bomb = async {
        let addr = server.local_addr().unwrap();
        drop_bomb(client.connect(addr, &coordinator.id()).await.unwrap()).await
    };
    let (_connected, accepted) = tokio::join!(bomb, accept);
    let (_answer, mut recv) = accepted.accept_bi().await.unwrap();

    let before = address_space_peak();
    let limits = Limits { control_bytes_max: u32::MAX };
    let error = read_message(&mut recv, &limits).await.unwrap_err();
    let grown = address_space_peak() - before;

    assert_eq!(error.rejection().map(|rejection| rejection.code), Some(RejectionCode::Truncated));
    assert!(grown < u64::from(CLAIMED_BYTES) / 2, "{grown} bytes for {CLAIMED_BYTES} claimed");
}

/// Sends a header that claims three gigabytes, and a hundred of them.
async fn drop_bomb(connection: quinn::Connection) -> quinn::Connection {
    let (mut send, _answers) = connection.open_bi().await.expect("streams are allowed");
    let header = FrameHeader { frame_type: FrameType::Status, length: CLAIMED_BYTES };
    send.write_all(&header.encode()).await.expect("the connection holds");
    send.write_all(&[0; 100]).await.expect("the connection holds");
    send.finish().expect("the stream is open");
    connection
}

//! A checkpoint of any size over real QUIC on loopback: broken off three times, moved to another address
//! once, and whole in the end.
//!
//!     cargo run --release -p packfed-protocol --example checkpoint -- 2147483648

#![expect(clippy::unwrap_used, clippy::panic, reason = "what fails here ends the measurement")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use packfed_protocol::quic::{client, read_message, read_piece, server, write_message, write_piece};
use packfed_protocol::{CoordinatorId, Fetch, Identity, Limits, Message, Payload, PayloadId, Prefix, Resume};

#[tokio::main]
async fn main() {
    let bytes = std::env::args().nth(1).map_or(2 << 30, |bytes| bytes.parse::<usize>().expect("a number of bytes"));
    let body = Payload::new(noise(bytes));
    let id = body.id();
    let coordinator = Identity::from_seed([1; 32]);
    let endpoint = server(&coordinator, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = endpoint.local_addr().unwrap();
    tokio::spawn(async move { serve(&endpoint, &body).await });

    let begin = Instant::now();
    let mut prefix = Prefix::new(id);
    for quarter in 1..=3 {
        fetch(&mut prefix, quarter * id.bytes / 4, address, &coordinator.id()).await;
        println!("broken off at {} of {} bytes after {:.1?}", prefix.offset(), id.bytes, begin.elapsed());
    }
    fetch(&mut prefix, id.bytes, address, &coordinator.id()).await;
    let whole = prefix.finish().unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    println!("{} bytes, digest {}, {:.0} MB/s", whole.id().bytes, whole.id().digest, bytes as f64 / seconds / 1e6);
    println!("peak memory of both sides: {}, of which the checkpoint twice", peak());
}

/// Reads on over a new connection until `until` bytes are there; half-way the address changes.
async fn fetch(prefix: &mut Prefix, until: u64, address: SocketAddr, coordinator: &CoordinatorId) {
    let client = client(&Identity::from_seed([2; 32])).unwrap();
    let connection = client.connect(address, coordinator).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let &PayloadId { digest: payload, .. } = prefix.id();
    let offset = prefix.offset();
    write_message(&mut send, &Message::Fetch(Fetch { payload, offset })).await.unwrap();
    let resume = read_message(&mut recv, &Limits::default()).await.unwrap().unwrap().0;
    assert_eq!(resume, Message::Resume(Resume { offset }));
    let mut moved = false;
    while prefix.offset() < until {
        read_piece(&mut recv, prefix).await.unwrap();
        if !moved && prefix.offset() > (offset + until) / 2 {
            client.rebind().unwrap();
            moved = true;
        }
    }
    client.close();
}

async fn serve(endpoint: &quinn::Endpoint, body: &Payload) {
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await.unwrap();
        let (mut send, mut recv) = connection.accept_bi().await.unwrap();
        let Some((Message::Fetch(fetch), _)) = read_message(&mut recv, &Limits::default()).await.unwrap() else {
            panic!("a fetch comes first");
        };
        let mut rest = body.rest(fetch.offset).unwrap();
        write_message(&mut send, &Message::Resume(Resume { offset: fetch.offset })).await.unwrap();
        // An error means that it was broken off.
        while write_piece(&mut send, &mut rest).await.is_ok_and(|bytes| bytes > 0) {}
        let _ = send.finish();
        let _ = send.stopped().await;
    }
}

/// Bytes that do not repeat (xorshift).
fn noise(bytes: usize) -> Vec<u8> {
    let (mut state, mut noise) = (1_u64, Vec::with_capacity(bytes + 8));
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map_or("unknown".into(), |peak| peak.trim().into())
}

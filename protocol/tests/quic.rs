//! Two endpoints over real loopback: who they see, and what passes between them.

use std::net::SocketAddr;

use packfed_protocol::quic::{Client, QuicError, ReadError, client, peer, read_message, server, write_message};
use packfed_protocol::{
    CatchUp, CheckIn, Digest, Enroll, FrameHeader, FrameType, HEADER_BYTES, Identity, LaneClips, Limits, Message,
    Outcome, RejectionCode, Round, RunId, Signed, Token, UpdateHeader, Verdict, Version, WorkerId,
};

const COORDINATOR_SEED: [u8; 32] = [1; 32];
const WORKER_SEED: [u8; 32] = [2; 32];

/// A worker's and a coordinator's end of one connection, and the endpoints that keep it alive.
struct Pair {
    worker: quinn::Connection,
    coordinator: quinn::Connection,
    _client: Client,
    _server: quinn::Endpoint,
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn connected() -> Pair {
    let server = server(&Identity::from_seed(COORDINATOR_SEED), loopback()).expect("loopback can be bound");
    let client = client(&Identity::from_seed(WORKER_SEED)).expect("a port is free");
    let addr = server.local_addr().expect("the server is bound");
    let pinned = Identity::from_seed(COORDINATOR_SEED).id();
    let accept = async { server.accept().await.expect("the endpoint is open").await.expect("the handshake succeeds") };
    let (worker, coordinator) = tokio::join!(client.connect(addr, &pinned), accept);
    Pair { worker: worker.expect("the key is the pinned one"), coordinator, _client: client, _server: server }
}

/// What the coordinator reads when a worker writes these bytes and finishes the stream.
async fn read_raw(bytes: &[u8]) -> Result<Option<(Message, usize)>, ReadError> {
    let pair = connected().await;
    let (mut send, _answers) = pair.worker.open_bi().await.expect("streams are allowed");
    send.write_all(bytes).await.expect("the connection holds");
    send.finish().expect("the stream is open");
    let (_answer, mut recv) = pair.coordinator.accept_bi().await.expect("a stream was opened");
    read_message(&mut recv, &Limits::default()).await
}

#[track_caller]
fn rejection_code(read: Result<Option<(Message, usize)>, ReadError>) -> RejectionCode {
    read.expect_err("it must be refused").rejection().expect("it is the peer's fault").code
}

fn enroll() -> Message {
    Message::Enroll(Enroll { token: Token([7; 16]), name: "pi-4".to_owned() })
}

fn check_in() -> Message {
    let (run, version, digest) = (RunId([3; 16]), Version(6), Digest([4; 32]));
    Message::CheckIn(CheckIn { run, version, digest, examples: 120, planned: false })
}

/// An update of 64 KiB: more than one packet.
fn update() -> Message {
    let worker = Identity::from_seed(WORKER_SEED);
    let header = UpdateHeader {
        worker: worker.id(),
        run: RunId([3; 16]),
        round: Round(7),
        base: Version(6),
        layout: Digest([5; 32]),
        examples: 120,
        train_loss: 0.5,
        clipped: vec![LaneClips { wave: 0, residual: 1 }; 3],
        words: 4096,
        payload: Digest([0; 32]),
    };
    Message::Update(Signed::new(&worker, header, vec![0xa5; 65536]))
}

#[tokio::test]
async fn both_sides_see_the_key_of_the_other() {
    let pair = connected().await;
    assert_eq!(peer(&pair.worker), Ok(Identity::from_seed(COORDINATOR_SEED).id()));
    assert_eq!(peer(&pair.coordinator), Ok(Identity::from_seed(WORKER_SEED).id()));
}

#[tokio::test]
async fn a_server_with_another_key_is_refused_by_name() {
    let server = server(&Identity::from_seed([9; 32]), loopback()).unwrap();
    let client = client(&Identity::from_seed(WORKER_SEED)).unwrap();
    let expected = Identity::from_seed(COORDINATOR_SEED).id();
    let found = Identity::from_seed([9; 32]).id();
    let accept = async { server.accept().await.unwrap().await };
    let (connected, accepted) = tokio::join!(client.connect(server.local_addr().unwrap(), &expected), accept);

    let error = connected.unwrap_err();
    assert_eq!(error, QuicError::WrongKey { expected, found });
    assert_eq!(error.to_string(), format!("server has key {found}, pinned is {expected}"));
    assert!(accepted.is_err());
}

#[tokio::test]
async fn the_next_connection_is_judged_anew() {
    let server = server(&Identity::from_seed(COORDINATOR_SEED), loopback()).unwrap();
    let client = client(&Identity::from_seed(WORKER_SEED)).unwrap();
    let addr = server.local_addr().unwrap();
    let accept = async {
        for _ in 0..2 {
            let _ = server.accept().await.unwrap().await;
        }
    };
    let right = Identity::from_seed(COORDINATOR_SEED).id();
    let connect = async {
        let connection = client.connect(addr, &right).await;
        (connection.is_ok(), client.connect(addr, &WorkerId([8; 32])).await.is_err())
    };
    assert_eq!(tokio::join!(connect, accept).0, (true, true));
}

#[tokio::test]
async fn a_client_without_a_key_gets_nothing() {
    let server = server(&Identity::from_seed(COORDINATOR_SEED), loopback()).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = vec![packfed_protocol::quic::ALPN.to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut endpoint = quinn::Endpoint::client(loopback()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(std::sync::Arc::new(tls)));

    let connect = endpoint.connect(server.local_addr().unwrap(), "packfed").unwrap();
    let accept = async { server.accept().await.unwrap().await };
    let (connected, accepted) = tokio::join!(connect, accept);
    assert!(connected.is_err() && accepted.is_err());
}

#[tokio::test]
async fn messages_pass_both_ways_and_every_byte_is_counted() {
    let pair = connected().await;
    let up = [enroll(), check_in(), update(), Message::StatusRequest];
    let digest = Digest([4; 32]);
    let catch_up = CatchUp { from: Version(0), to: Version(6), digest, body: vec![0x5a; 300_000] };
    let down = [Message::CatchUp(catch_up), Message::Verdict(Verdict { round: Round(7), outcome: Outcome::Accepted })];

    let worker = async {
        let (mut send, mut recv) = pair.worker.open_bi().await.unwrap();
        write_all(&mut send, &up).await;
        read_all(&mut recv, &down).await;
    };
    let coordinator = async {
        let (mut send, mut recv) = pair.coordinator.accept_bi().await.unwrap();
        read_all(&mut recv, &up).await;
        write_all(&mut send, &down).await;
    };
    tokio::join!(worker, coordinator);
}

/// Writes messages and finishes the stream.
async fn write_all(send: &mut quinn::SendStream, messages: &[Message]) {
    for message in messages {
        let written = write_message(send, message).await;
        assert_eq!(written, Ok(message.encode().len()));
    }
    send.finish().expect("the stream is open");
}

/// Reads until the stream is finished, and expects these messages.
async fn read_all(recv: &mut quinn::RecvStream, expected: &[Message]) {
    for message in expected {
        let read = read_message(recv, &Limits::default()).await;
        assert_eq!(read, Ok(Some((message.clone(), message.encode().len()))));
    }
    assert_eq!(read_message(recv, &Limits::default()).await, Ok(None));
}

#[tokio::test]
async fn a_stream_that_ends_between_frames_ends_cleanly() {
    assert_eq!(read_raw(&[]).await, Ok(None));
}

#[tokio::test]
async fn a_stream_that_ends_within_a_frame_is_truncated() {
    let frame = check_in().encode();
    assert_eq!(rejection_code(read_raw(&frame[..5]).await), RejectionCode::Truncated);
    assert_eq!(rejection_code(read_raw(&frame[..HEADER_BYTES]).await), RejectionCode::Truncated);
    assert_eq!(rejection_code(read_raw(&frame[..frame.len() - 1]).await), RejectionCode::Truncated);
}

#[tokio::test]
async fn what_is_no_frame_is_told_so() {
    assert_eq!(rejection_code(read_raw(b"GET / HTTP/1.1").await), RejectionCode::Malformed);
    assert_eq!(rejection_code(read_raw(b"PF\x02\x05\0\0\0\0").await), RejectionCode::UnknownType);
}

#[tokio::test]
async fn a_frame_over_its_bound_is_refused_by_its_header_alone() {
    let length = Limits::default().control_bytes_max + 1;
    let header = FrameHeader { frame_type: FrameType::CheckIn, length }.encode();
    // The body never comes and the stream stays open: only the header can have decided.
    let pair = connected().await;
    let (mut send, _answers) = pair.worker.open_bi().await.unwrap();
    send.write_all(&header).await.unwrap();
    let (_answer, mut recv) = pair.coordinator.accept_bi().await.unwrap();
    let read = read_message(&mut recv, &Limits::default()).await;
    assert_eq!(rejection_code(read), RejectionCode::Oversized);
}

#[tokio::test]
async fn a_lost_connection_is_nobodys_bad_frame() {
    let pair = connected().await;
    let (mut send, _answers) = pair.worker.open_bi().await.unwrap();
    send.write_all(b"PF").await.unwrap();
    let (_answer, mut recv) = pair.coordinator.accept_bi().await.unwrap();
    pair.worker.close(0_u8.into(), b"gone");
    let error = read_message(&mut recv, &Limits::default()).await.unwrap_err();
    assert!(matches!(error, ReadError::Lost(_)), "{error:?}");
    assert_eq!(error.rejection(), None);
}

#[tokio::test]
async fn a_reset_stream_is_lost() {
    let pair = connected().await;
    let (mut send, _answers) = pair.worker.open_bi().await.unwrap();
    send.write_all(b"PF").await.unwrap();
    let (_answer, mut recv) = pair.coordinator.accept_bi().await.unwrap();
    send.reset(3_u8.into()).unwrap();
    let error = read_message(&mut recv, &Limits::default()).await.unwrap_err();
    assert_eq!(error, ReadError::Lost(quinn::ReadError::Reset(3_u8.into())));
}

#[tokio::test]
async fn the_keys_of_concurrent_connections_are_not_confused() {
    let server = server(&Identity::from_seed(COORDINATOR_SEED), loopback()).unwrap();
    let addr = server.local_addr().unwrap();
    let pinned = Identity::from_seed(COORDINATOR_SEED).id();
    for seed in 10..14 {
        let worker = Identity::from_seed([seed; 32]);
        let client = client(&worker).unwrap();
        let accept = async { server.accept().await.unwrap().await.unwrap() };
        let (connection, accepted) = tokio::join!(client.connect(addr, &pinned), accept);
        assert_eq!(peer(&accepted), Ok(worker.id()));
        drop(connection);
        client.close();
        client.wait_idle().await;
    }
}

#[test]
fn without_a_runtime_there_is_no_endpoint() {
    let error = client(&Identity::from_seed(WORKER_SEED)).unwrap_err();
    assert!(matches!(error, QuicError::Bind { .. }), "{error:?}");
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let identity = Identity::from_seed(COORDINATOR_SEED);
    let first = server(&identity, loopback()).unwrap();
    let addr = first.local_addr().unwrap();
    let error = server(&identity, addr).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot bind {addr}: ")), "{error}");
}

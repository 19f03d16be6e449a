//! Two endpoints over real loopback: who they see, and what passes between them.

use std::net::SocketAddr;

use packfed_protocol::quic::{
    Client, QuicError, ReadError, client, peer, read_frame, read_message, read_piece, server, write_message,
    write_piece,
};
use packfed_protocol::{
    CheckIn, Conditions, Digest, Enroll, Fetch, Frame, FrameHeader, FrameType, HEADER_BYTES, Identity, LaneClips,
    Limits, Message, Offer, Outcome, Payload, PayloadId, Prefix, RejectionCode, Round, RunId, Signed, Status, Token,
    UpdateHeader, UpdateOffer, Verdict, Version, WorkerId,
};

const COORDINATOR_SEED: [u8; 32] = [1; 32];
const WORKER_SEED: [u8; 32] = [2; 32];

/// A worker's and a coordinator's end of one connection, and the endpoints that keep it alive.
struct Pair {
    worker: quinn::Connection,
    coordinator: quinn::Connection,
    client: Client,
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
    Pair { worker: worker.expect("the key is the pinned one"), coordinator, client, _server: server }
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
    Message::CheckIn(CheckIn { run, version, digest, examples: 120, conditions: Conditions::ALL, planned: false })
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
async fn aclient_without_a_key_gets_nothing() {
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
    let up = [enroll(), check_in(), Message::StatusRequest];
    let verdict = Message::Verdict(Verdict { round: Round(7), outcome: Outcome::Accepted });
    // More than one packet.
    let down = [Message::Status(Status { json: "s".repeat(300_000) }), verdict];

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

/// The coordinator's half of a download: the rest of `body` from where the worker is; broken off after
/// `bytes` if that is given.
async fn serve_rest(connection: &quinn::Connection, body: &Payload, bytes: Option<usize>) {
    let (mut send, mut recv) = connection.accept_bi().await.expect("the worker opens a stream");
    let asked = read_message(&mut recv, &Limits::default()).await.expect("a message comes whole");
    let Some((Message::Fetch(fetch), _)) = asked else { unreachable!("a fetch comes first: {asked:?}") };
    assert_eq!(fetch.payload, body.id().digest);
    let mut rest = body.rest(fetch.offset).expect("nobody asks for more than there is");
    if let Some(bytes) = bytes {
        rest.truncate(bytes);
    }
    while write_piece(&mut send, &mut rest).await.expect("the worker reads") > 0 {}
    match bytes {
        // What was written has to be there, or there is nothing to go on with.
        Some(_) => drop(connection.closed().await),
        None => {
            send.finish().expect("the stream is open");
            send.stopped().await.expect("the worker reads to the end");
        }
    }
}

/// The worker's half: reads on until the payload is whole, or breaks off when it has `until` bytes.
async fn fetch(connection: &quinn::Connection, prefix: &mut Prefix, until: u64) {
    let (mut send, mut recv) = connection.open_bi().await.expect("the connection is open");
    let ask = Fetch { payload: prefix.id().digest, offset: prefix.offset() };
    write_message(&mut send, &Message::Fetch(ask)).await.expect("the coordinator reads");
    while prefix.offset() < until {
        assert!(read_piece(&mut recv, prefix).await.expect("the coordinator sends") > 0);
    }
    if prefix.missing() == 0 {
        assert_eq!(read_piece(&mut recv, prefix).await, Ok(0));
    }
}

fn body() -> Payload {
    Payload::new((0..100_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
}

#[tokio::test]
async fn a_payload_goes_on_over_the_next_connection() {
    let body = body();
    let mut prefix = Prefix::new(body.id());
    for part in [100_000, 70_000] {
        let pair = connected().await;
        let until = prefix.offset() + part;
        let get = async {
            fetch(&pair.worker, &mut prefix, until).await;
            pair.worker.close(0_u8.into(), b"broken off");
        };
        tokio::join!(get, serve_rest(&pair.coordinator, &body, Some(usize::try_from(part).unwrap())));
    }
    assert_eq!(prefix.offset(), 170_000);
    let pair = connected().await;
    tokio::join!(fetch(&pair.worker, &mut prefix, 400_000), serve_rest(&pair.coordinator, &body, None));
    assert_eq!(prefix.finish().unwrap(), body);
}

#[tokio::test]
async fn a_payload_goes_on_from_another_address_over_the_same_connection() {
    let (pair, body) = (connected().await, body());
    let mut prefix = Prefix::new(body.id());
    let before = pair.coordinator.remote_address();
    let get = async {
        let (mut send, mut recv) = pair.worker.open_bi().await.unwrap();
        let ask = Fetch { payload: body.id().digest, offset: 0 };
        write_message(&mut send, &Message::Fetch(ask)).await.unwrap();
        read_piece(&mut recv, &mut prefix).await.unwrap();
        pair.client.rebind().unwrap();
        while read_piece(&mut recv, &mut prefix).await.unwrap() > 0 {}
    };
    tokio::join!(get, serve_rest(&pair.coordinator, &body, None));
    assert_eq!(prefix.finish().unwrap(), body);
    assert_ne!(pair.coordinator.remote_address(), before);
}

#[tokio::test]
async fn a_payload_that_ends_early_says_where() {
    let pair = connected().await;
    let (mut send, _answers) = pair.worker.open_bi().await.unwrap();
    send.write_all(&[0; 1000]).await.unwrap();
    send.finish().unwrap();
    let (_answer, mut recv) = pair.coordinator.accept_bi().await.unwrap();
    let mut prefix = Prefix::new(PayloadId { digest: Digest([0; 32]), bytes: 4096 });
    let error = loop {
        if let Err(error) = read_piece(&mut recv, &mut prefix).await {
            break error;
        }
    };
    assert_eq!(error.to_string(), "bad frame: truncated: payload has 1000 bytes, needs at least 4096");
    assert_eq!(prefix.offset(), 1000);
}

#[tokio::test]
async fn an_update_is_announced_and_has_no_place_among_messages() {
    let Message::Update(signed) = update() else { unreachable!() };
    let pair = connected().await;
    let (mut send, _answers) = pair.worker.open_bi().await.unwrap();
    let written = write_message(&mut send, &update()).await.unwrap();
    assert_eq!(written, update().encode().len() - signed.payload.len());
    write_message(&mut send, &update()).await.unwrap();
    let (_answer, mut recv) = pair.coordinator.accept_bi().await.unwrap();
    let frame = read_frame(&mut recv, &Limits::default()).await.unwrap();
    let offer = UpdateOffer { header: signed.header, signature: signed.signature };
    assert_eq!(frame, Some((Frame::Offer(Offer::Update(offer)), written)));
    let refused = read_message(&mut recv, &Limits::default()).await;
    assert_eq!(rejection_code(refused), RejectionCode::Unexpected);
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
    assert_eq!(rejection_code(read_raw(b"PF\x06\x07\0\0\0\0").await), RejectionCode::UnknownType);
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

#[tokio::test]
async fn identities_that_share_a_socket_are_told_apart() {
    let server = server(&Identity::from_seed(COORDINATOR_SEED), loopback()).unwrap();
    let addr = server.local_addr().unwrap();
    let pinned = Identity::from_seed(COORDINATOR_SEED).id();
    let shared = client(&Identity::from_seed(WORKER_SEED)).unwrap();
    let mut held = Vec::new();
    for seed in 10..14 {
        let worker = Identity::from_seed([seed; 32]);
        let client = shared.with_identity(&worker);
        let accept = async { server.accept().await.unwrap().await.unwrap() };
        let (connection, accepted) = tokio::join!(client.connect(addr, &pinned), accept);
        assert_eq!(peer(&accepted), Ok(worker.id()));
        held.push((connection.unwrap(), accepted));
    }
    let ports: std::collections::BTreeSet<_> = held.iter().map(|(_, accepted)| accepted.remote_address()).collect();
    assert_eq!(ports.len(), 1);
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

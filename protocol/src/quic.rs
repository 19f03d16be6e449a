//! Endpoints whose only certificates are Ed25519 keys.
//!
//! TLS 1.3 both ways over QUIC with RFC 7250 raw public keys: the key that a peer proves in the
//! handshake *is* its identity. There is no authority, no certificate and no name to check. The
//! client pins the coordinator's key; the server takes any key that its peer can prove, because
//! who is admitted is the registry's business. Every function here needs a tokio runtime around
//! it. Nothing here retries, and no time-out is kept but the connection's own.

mod reset;
mod stream;
mod tls;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::VarInt;
use thiserror::Error;

use crate::id::{CoordinatorId, WorkerId};
use crate::identity::Identity;

pub use stream::{
    PIECE_BYTES_MAX, ReadError, read_end, read_frame, read_message, read_piece, write_message, write_piece,
};

/// The protocol that both sides name in the handshake; a peer with another is turned away.
pub const ALPN: &[u8] = b"packfed/1";

/// How often an idle connection says that it is still there. A third of the idle time-out and
/// less, so that a lost packet or two does not end it.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// After how long a silent peer counts as gone. Connecting gives up after the same time.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Streams that a peer may have open at once: one for control, one per update, room to spare.
pub const BIDIRECTIONAL_STREAMS_MAX: u32 = 16;

/// Bytes that a peer may send on one stream before they are read.
pub const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// Bytes that a peer may send on all streams of a connection before they are read, and bytes that may
/// wait to be acknowledged by it: what a connection holds at most, either way.
pub const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;

/// First packets of handshakes that may wait to be judged.
const INCOMING_MAX: usize = 1 << 10;

/// Bytes that may wait with one of these, and with all.
const INCOMING_BYTES_MAX: (u64, u64) = (16 << 10, 4 << 20);

/// Bytes of packets that may wait for the process; the system may allow fewer.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// One-way streams that a peer may open: none, every exchange has an answer.
pub const UNIDIRECTIONAL_STREAMS_MAX: u32 = 0;

/// TLS wants the name of a server; keys are what is checked, so any will do.
const SERVER_NAME: &str = "packfed";

/// An endpoint that takes connections from any peer with a key; ask [`peer`] for whose it was.
///
/// # Errors
/// [`QuicError::Bind`] if there is no tokio runtime, or the address cannot be had.
pub fn server(identity: &Identity, addr: SocketAddr) -> Result<quinn::Endpoint, QuicError> {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls::server(identity)));
    config
        .transport_config(Arc::new(transport()))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX.0)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX.1);
    let mut endpoint = quinn::EndpointConfig::new(Arc::new(reset::ResetKey::new(identity)));
    endpoint.cid_generator(|| Box::new(reset::RandomIds));
    let bind = || {
        let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no tokio runtime"))?;
        let socket = UdpSocket::bind(addr)?;
        widen(&socket);
        quinn::Endpoint::new(endpoint, Some(config), socket, runtime)
    };
    bind().map_err(|error| QuicError::Bind { addr, reason: error.to_string() })
}

/// Lets more packets wait: many peers share a server's socket, and with the system's own buffer a dozen that begin
/// to send at once lose some. A system that wants none of it has said all that there is to say.
fn widen(socket: &UdpSocket) {
    if let Ok(state) = quinn::udp::UdpSocketState::new(socket.into()) {
        let _ = state.set_recv_buffer_size(socket.into(), RECEIVE_BUFFER_BYTES);
    }
}

/// A socket to connect from, on any free port.
///
/// # Errors
/// [`QuicError::Bind`] if there is no tokio runtime, or no socket can be had.
pub fn client(identity: &Identity) -> Result<Client, QuicError> {
    let any_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    // The first reaches both kinds of address, but needs a machine that knows IPv6.
    let endpoint = quinn::Endpoint::client(any_v6)
        .or_else(|_| quinn::Endpoint::client(any_v4))
        .map_err(|error| QuicError::Bind { addr: any_v4, reason: error.to_string() })?;
    Ok(Client { endpoint, identity: identity.clone() })
}

/// The connecting side.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: quinn::Endpoint,
    identity: Identity,
}

impl Client {
    /// Connects to the coordinator with this key, and to no other.
    ///
    /// A server that does not want this client's key says so after the handshake: it shows at the
    /// first read.
    ///
    /// # Errors
    /// [`QuicError::WrongKey`] if somebody else answers, [`QuicError::Connect`] for an address
    /// that cannot be used, [`QuicError::Connection`] if nobody answers in time or the handshake
    /// fails.
    pub async fn connect(&self, addr: SocketAddr, coordinator: &CoordinatorId) -> Result<quinn::Connection, QuicError> {
        let seen = Arc::new(OnceLock::new());
        let tls = tls::client(&self.identity, *coordinator, Arc::clone(&seen));
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport()));
        let connecting = self.endpoint.connect_with(config, addr, SERVER_NAME)?;
        connecting.await.map_err(|error| match seen.get() {
            Some(found) if found != coordinator => QuicError::WrongKey { expected: *coordinator, found: *found },
            _ => QuicError::Connection(error),
        })
    }

    /// Another identity that connects from the same socket; closing either closes the connections of both.
    #[must_use]
    pub fn with_identity(&self, identity: &Identity) -> Client {
        Client { endpoint: self.endpoint.clone(), identity: identity.clone() }
    }

    /// Goes on from another port: what a change of network looks like to the coordinator. Connections
    /// stay; what was lost on the way is sent again.
    ///
    /// # Errors
    /// [`QuicError::Bind`] if no other socket can be had; the old one stays.
    pub fn rebind(&self) -> Result<(), QuicError> {
        // Of the same family: the addresses of peers are written in it.
        let v6 = self.endpoint.local_addr().is_ok_and(|addr| addr.is_ipv6());
        let ip = if v6 { IpAddr::from(Ipv6Addr::UNSPECIFIED) } else { IpAddr::from(Ipv4Addr::UNSPECIFIED) };
        let addr = SocketAddr::new(ip, 0);
        let rebound = UdpSocket::bind(addr).and_then(|socket| self.endpoint.rebind(socket));
        rebound.map_err(|error| QuicError::Bind { addr, reason: error.to_string() })
    }

    /// Closes every connection at once, without waiting for what is on its way.
    pub fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"closed");
    }

    /// Waits until the peers know that their connections are closed, or gave up waiting.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }
}

/// The key that the other side of a connection proved.
///
/// # Errors
/// [`QuicError::NoPeerKey`] for a connection that was not made by [`server`] or [`Client`].
pub fn peer(connection: &quinn::Connection) -> Result<WorkerId, QuicError> {
    connection.peer_identity().and_then(|identity| tls::peer_key(identity.as_ref())).ok_or(QuicError::NoPeerKey)
}

/// What both sides set alike. The MTU stays at its default: discovery does well by itself.
fn transport() -> quinn::TransportConfig {
    let idle = quinn::IdleTimeout::try_from(IDLE_TIMEOUT).expect("20 s in milliseconds fit a 62-bit integer");
    let mut transport = quinn::TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(idle))
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDIRECTIONAL_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(UNIDIRECTIONAL_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(CONNECTION_WINDOW_BYTES.into())
        .datagram_receive_buffer_size(None);
    transport
}

/// Why there is no endpoint, no connection, or no more of one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuicError {
    /// No socket.
    #[error("cannot bind {addr}: {reason}")]
    Bind {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// The connection could not even be tried.
    #[error("cannot connect: {0}")]
    Connect(#[from] quinn::ConnectError),
    /// Somebody else answered than the coordinator that is pinned.
    #[error("server has key {found}, pinned is {expected}")]
    WrongKey {
        /// The key that is pinned.
        expected: CoordinatorId,
        /// The key that the server claims.
        found: CoordinatorId,
    },
    /// The connection could not be made, or was lost.
    #[error("connection: {0}")]
    Connection(#[from] quinn::ConnectionError),
    /// The other side of the connection proved no Ed25519 key.
    #[error("peer proved no ed25519 key")]
    NoPeerKey,
    /// The stream takes no more.
    #[error("cannot write: {0}")]
    Write(#[from] quinn::WriteError),
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn as_many_packets_may_wait_as_the_system_allows() {
        // Only there in the network that the machine began with.
        let Ok(allowed) = std::fs::read_to_string("/proc/sys/net/core/rmem_max") else { return };
        let allowed: usize = allowed.trim().parse().unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        widen(&socket);
        let state = quinn::udp::UdpSocketState::new((&socket).into()).unwrap();
        let bytes = state.recv_buffer_size((&socket).into()).unwrap();
        // The system doubles what it is asked for, to have room for its own records.
        assert_eq!(bytes, 2 * allowed.min(RECEIVE_BUFFER_BYTES));
    }
}

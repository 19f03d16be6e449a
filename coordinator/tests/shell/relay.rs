//! A way to the coordinator that begins at another address of loopback.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

pub(crate) struct Relay {
    /// Where to send to instead.
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Passes on packets in both directions; to `to` they come from `from`, every sender from its own port.
    pub(crate) async fn from(from: Ipv4Addr, to: SocketAddr) -> Self {
        let near = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let address = near.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut back = JoinSet::new();
            let mut far = BTreeMap::<SocketAddr, Arc<UdpSocket>>::new();
            let mut packet = vec![0; 1 << 16];
            loop {
                let Ok((bytes, sender)) = near.recv_from(&mut packet).await else { continue };
                let socket = match far.entry(sender) {
                    Entry::Occupied(known) => Arc::clone(known.get()),
                    Entry::Vacant(new) => {
                        let socket = Arc::new(UdpSocket::bind((from, 0)).await.unwrap());
                        back.spawn(pass_back(Arc::clone(&socket), Arc::clone(&near), sender));
                        Arc::clone(new.insert(socket))
                    }
                };
                let _ = socket.send_to(&packet[..bytes], to).await;
            }
        });
        Self { address, _tasks: tasks }
    }
}

async fn pass_back(far: Arc<UdpSocket>, near: Arc<UdpSocket>, sender: SocketAddr) {
    let mut packet = vec![0; 1 << 16];
    while let Ok((bytes, _)) = far.recv_from(&mut packet).await {
        let _ = near.send_to(&packet[..bytes], sender).await;
    }
}

//! The operator's question: how are things?

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use packfed_protocol::quic::{client, read_message, write_message};
use packfed_protocol::{Limits, Message};
use serde_json::Value;

use crate::run;

/// The coordinator's status.
pub(crate) async fn status(address: SocketAddr) -> Result<Value> {
    let own = run::coordinator();
    let client = client(&own)?;
    let connection = client.connect(address, &own.id()).await.context("ask for the status")?;
    let (mut send, mut recv) = connection.open_bi().await?;
    write_message(&mut send, &Message::StatusRequest).await?;
    let answer = read_message(&mut recv, &Limits::default()).await?;
    client.close();
    match answer.context("no status")?.0 {
        Message::Status(status) => Ok(serde_json::from_str(&status.json)?),
        other => bail!("a {} where the status belongs", other.frame_type()),
    }
}

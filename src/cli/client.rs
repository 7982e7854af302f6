//! The way from a command to the daemon: its socket, and its errors for people. What does not live here: what is asked.

use std::path::Path;

use anyhow::{Context, anyhow};
use berth_proto::admin::v1::admin_client::AdminClient;
use berth_proto::cri::v1::image_service_client::ImageServiceClient;
use berth_proto::cri::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::channel;

/// Largest answer taken: what the daemon sends at most.
const MESSAGE: usize = 16 << 20;

/// A connection to one daemon.
pub(super) struct Client {
    /// CRI.
    pub images: ImageServiceClient<Channel>,
    /// CRI.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Berth's own.
    pub admin: AdminClient<Channel>,
}

impl Client {
    /// Fails if nobody listens.
    pub async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let nobody = || {
            format!(
                "no daemon answers at {} (is `berth serve` running, and is this its --socket?)",
                socket.display()
            )
        };
        let channel = channel::connect(socket).await.map_err(anyhow::Error::from_boxed);
        let channel = channel.with_context(nobody)?;
        Ok(Self {
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE),
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE),
            admin: AdminClient::new(channel).max_decoding_message_size(MESSAGE),
        })
    }
}

/// For `map_err`: the daemon's words, and no code, as they say it better.
pub(super) fn said(status: Status) -> anyhow::Error {
    match status.code() {
        Code::Unimplemented => anyhow!("the daemon is older than this command: {}", status.message()),
        Code::Unknown | Code::Cancelled if status.message().is_empty() => {
            anyhow!("the daemon ended the call")
        }
        // Also what the transport says when the daemon goes away.
        _ => anyhow!("{}", status.message()),
    }
}

//! Watching a node's events, as the kubelet's evented PLEG does. What does not live here: what is expected of them.

use std::time::Duration;

use berth_proto::cri::v1::*;
use tonic::{Status, Streaming};

use crate::client::{Client, Reply};

/// One open stream.
pub struct Events {
    stream: Streaming<ContainerEventResponse>,
}

impl Events {
    /// GetContainerEvents.
    pub async fn watch(client: &Client) -> Reply<Self> {
        let stream = client.runtime.clone().get_container_events(GetEventsRequest {}).await?.into_inner();
        Ok(Self { stream })
    }

    /// The next event; fails if none comes.
    pub async fn next(&mut self) -> Reply<ContainerEventResponse> {
        let next = tokio::time::timeout(crate::bound(Duration::from_secs(20)), self.stream.message()).await;
        let next = next.map_err(|_| Status::deadline_exceeded("no event within 20 s"))??;
        next.ok_or_else(|| Status::aborted("the stream has ended without a status"))
    }

    /// So many of the next events.
    pub async fn take(&mut self, count: usize) -> Reply<Vec<ContainerEventResponse>> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await?);
        }
        Ok(events)
    }

    /// The status that the stream ends with, after however many events.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

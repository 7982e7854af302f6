//! GetContainerEvents: the stream of one client.

use std::sync::Arc;

use berth_proto::cri::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::batches::Batches;
use super::convert::event;
use crate::pods::{Pods, WatchEnd};

/// Every event from here on, until the client goes, is too slow, or the daemon stops.
pub(super) fn events(pods: &Arc<Pods>) -> Batches<v1::ContainerEventResponse> {
    let mut watch = pods.watch();
    // Events wait as looks, which cost little, and become messages one by one.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok(place) = sender.reserve().await {
            let next = tokio::select! {
                next = watch.next() => next,
                () = sender.closed() => return,
            };
            match next {
                Ok(sight) => place.send(Ok(event::event(&sight))),
                Err(end) => return place.send(Err(status(end))),
            }
        }
    });
    ReceiverStream::new(receiver)
}

fn status(end: WatchEnd) -> Status {
    match end {
        WatchEnd::Overflow => Status::resource_exhausted(end.to_string()),
        WatchEnd::Stopping => Status::unavailable(end.to_string()),
    }
}

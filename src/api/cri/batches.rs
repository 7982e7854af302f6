//! Lists that may be too long for one message: as a stream of messages of bounded size, or whole if they fit. What does
//! not live here: what is listed.

use std::sync::Arc;

use berth_proto::cri::v1;
use prost::Message;
use prost::encoding::encoded_len_varint;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::convert::container_item;
use crate::containers::Container;

/// Bytes of items in one message of a stream; a single item that is bigger travels alone.
const BATCH: usize = 1 << 20;
/// Largest list answered in one message: what the kubelet's client takes, 16 MiB, less what wraps the items.
const WHOLE: usize = (16 << 20) - 1024;

/// What every Stream* RPC returns.
pub(super) type Batches<R> = ReceiverStream<Result<R, Status>>;

/// Streams `items`, each exactly once and in order, in messages that `message` makes of about 1 MiB of them; no items,
/// no message. An item is made when its message is due, on a thread that may block, and the next message is
/// begun when the client has taken the one before: a slow client costs one message, and one that goes away ends it.
pub(super) fn stream<T, R>(
    items: impl IntoIterator<Item = T, IntoIter: Send + 'static>,
    message: impl Fn(Vec<T>) -> R + Send + 'static,
) -> Batches<R>
where
    T: Message + 'static,
    R: Send + 'static,
{
    let (sender, receiver) = mpsc::channel(1);
    let mut batched = Batched { items: items.into_iter(), next: None };
    tokio::spawn(async move {
        // A batch is made only once there is a place for it.
        while let Ok(place) = sender.reserve().await {
            let made = tokio::task::spawn_blocking(move || (batched.next(), batched)).await;
            match made {
                Ok((Some(batch), rest)) => {
                    place.send(Ok(message(batch)));
                    batched = rest;
                }
                Ok((None, _)) => break,
                Err(lost) => {
                    place.send(Err(Status::internal(format!(
                        "cannot make the next part of the list: {lost}"
                    ))));
                    break;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// All items of a list that is answered in one message. One that does not fit is refused by a status that names
/// the RPC which can: the kubelet's client would break off the connection instead.
pub(super) fn whole<T: Message>(items: impl IntoIterator<Item = T>, instead: &str) -> Result<Vec<T>, Status> {
    let mut size = 0;
    let mut taken = Vec::new();
    for item in items {
        size += framed(&item);
        fits(size, instead)?;
        taken.push(item);
    }
    Ok(taken)
}

/// The same of containers.
pub(super) fn containers(
    found: &[Arc<Container>],
    instead: &str,
) -> Result<v1::ListContainersResponse, Status> {
    let mut list = v1::ListContainersResponse::default();
    let mut item = Vec::new();
    for container in found {
        item.clear();
        container_item::encode(container, &mut item);
        list.push(&item);
        fits(list.encoded_len(), instead)?;
    }
    Ok(list)
}

/// Refuses a list of so many bytes if no one message may have them.
pub(super) fn fits(size: usize, instead: &str) -> Result<(), Status> {
    if size <= WHOLE {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!(
        "the list does not fit in one message of {} MiB: use {instead}, or a filter",
        WHOLE.div_ceil(1 << 20)
    )))
}

/// Cuts items into vectors of about `BATCH` encoded bytes, none of them empty.
struct Batched<I: Iterator> {
    items: I,
    /// The one that did not fit in the batch before.
    next: Option<I::Item>,
}

impl<T: Message, I: Iterator<Item = T>> Iterator for Batched<I> {
    type Item = Vec<T>;

    fn next(&mut self) -> Option<Vec<T>> {
        let first = self.next.take().or_else(|| self.items.next())?;
        let mut size = framed(&first);
        let mut batch = vec![first];
        for item in self.items.by_ref() {
            size += framed(&item);
            if size > BATCH {
                self.next = Some(item);
                break;
            }
            batch.push(item);
        }
        Some(batch)
    }
}

/// Bytes of an item within a message, with its tag (of one byte, as all fields up to 15 have) and its length.
fn framed(item: &impl Message) -> usize {
    let len = item.encoded_len();
    1 + encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use berth_proto::cri::v1::{Container, StreamContainersResponse};
    use proptest::prelude::*;
    use tokio_stream::StreamExt;

    use super::*;

    fn item(size: usize) -> Container {
        Container { id: "x".repeat(size), ..Container::default() }
    }

    fn cut(sizes: &[usize]) -> Vec<Vec<usize>> {
        let batched = Batched { items: sizes.iter().map(|size| item(*size)), next: None };
        batched.map(|batch| batch.iter().map(|item| item.id.len()).collect()).collect()
    }

    async fn sizes(mut stream: Batches<StreamContainersResponse>) -> Vec<usize> {
        let mut sizes = Vec::new();
        while let Some(message) = stream.next().await {
            sizes.push(message.unwrap().containers.len());
        }
        sizes
    }

    proptest! {
        #[test]
        fn every_item_comes_once_in_order_and_messages_are_bounded(
            sizes in prop::collection::vec(prop_oneof![0..200usize, 200_000..1_400_000usize], 0..24),
        ) {
            let batches = cut(&sizes);
            prop_assert_eq!(batches.concat(), sizes);
            for batch in batches {
                prop_assert!(!batch.is_empty());
                let containers: Vec<_> = batch.iter().map(|size| item(*size)).collect();
                let len = StreamContainersResponse { containers }.encoded_len();
                prop_assert!(batch.len() == 1 || len <= BATCH, "{} items of {} bytes", batch.len(), len);
            }
        }
    }

    #[tokio::test]
    async fn a_stream_has_all_items_and_none_for_an_empty_list() {
        let message = |containers| StreamContainersResponse { containers };
        assert!(sizes(stream(Vec::new(), message)).await.is_empty());
        let many = sizes(stream((0..25).map(|_| item(100 << 10)), message)).await;
        assert_eq!(many, [10, 10, 5]);
    }

    #[tokio::test]
    async fn a_slow_client_costs_two_messages_and_one_that_leaves_ends_the_work() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = made.clone();
        let items = (0..1000).map(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            item(512 << 10)
        });
        let mut slow = stream(items, |containers| StreamContainersResponse { containers });
        assert!(slow.next().await.is_some());
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = made.load(Ordering::SeqCst);
        assert!(before < 8, "{before} items were made for a client that took one message");
        drop(slow);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(made.load(Ordering::SeqCst) < before + 4);
    }

    #[tokio::test]
    async fn a_panic_in_an_item_is_an_error_of_the_stream() {
        let items =
            (0..3).map(|number| if number == 2 { panic!("as the test wants") } else { item(1 << 20) });
        let mut stream = stream(items, |containers| StreamContainersResponse { containers });
        let mut last = None;
        while let Some(message) = stream.next().await {
            last = Some(message);
        }
        assert_eq!(last.unwrap().unwrap_err().code(), tonic::Code::Internal);
    }

    #[test]
    fn a_whole_list_fits_the_kubelets_limit_or_is_refused_by_name() {
        let fits = whole((0..16).map(|_| item(1023 << 10)), "StreamContainers").unwrap();
        assert!(StreamContainersResponse { containers: fits }.encoded_len() <= 16 << 20);
        let error = whole((0..17).map(|_| item(1 << 20)), "StreamContainers").unwrap_err();
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
        assert!(error.message().contains("StreamContainers"), "{error}");
    }
}

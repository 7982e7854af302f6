//! Many short blocking reads at once: spread over a few threads, results in order. What does not live here: what is read.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// The most threads that such reads take, however many callers there are.
const THREADS: usize = 4;
/// Fewer are not worth another thread.
const WORTH_A_THREAD: usize = 16;

static SEATS: Semaphore = Semaphore::const_new(THREADS);

/// Runs `read` on each item. An item whose read panics, or is cut off by the daemon's end, has no result.
pub async fn spread<T, R>(items: Vec<T>, read: impl Fn(T) -> R + Send + Sync + 'static) -> Vec<R>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = items.len().div_ceil(WORTH_A_THREAD).min(cores).clamp(1, THREADS);
    let share = items.len().div_ceil(threads).max(1);
    let read = Arc::new(read);
    let mut items = items.into_iter();
    let mut tasks = Vec::with_capacity(threads);
    loop {
        let part: Vec<T> = items.by_ref().take(share).collect();
        if part.is_empty() {
            break;
        }
        // Never closed.
        let seat = SEATS.acquire().await;
        let read = read.clone();
        tasks.push(tokio::task::spawn_blocking(move || {
            let results: Vec<R> = part.into_iter().map(|item| read(item)).collect();
            drop(seat);
            results
        }));
    }
    let mut results = Vec::new();
    for task in tasks {
        match task.await {
            Ok(part) => results.extend(part),
            Err(error) => tracing::warn!(%error, "some reads have no result"),
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn results_come_in_the_order_of_the_items() {
        for length in [0, 1, 15, 16, 17, 333] {
            let results = spread((0..length).collect(), |item| item * 2).await;
            assert_eq!(results, (0..length).map(|item| item * 2).collect::<Vec<_>>());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_failed_read_takes_no_seat_away() {
        for _ in 0..2 * THREADS {
            let results = spread(vec![1], |item: i32| assert_eq!(item, 2)).await;
            assert!(results.is_empty());
        }
        assert_eq!(spread(vec![1], |item| item).await, [1]);
    }
}

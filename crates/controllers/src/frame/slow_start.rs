use futures_util::future::join_all;

/// Calls `f` with 0, 1, …, `count - 1` in concurrent batches of 1, 2, 4, … calls, and stops after the first batch with
/// a failure: the cause (a quota, an admission plugin) is likely to reject the remaining calls, too. Returns the number
/// of calls, the number of successes, and the first failure.
pub async fn slow_start<E, F>(count: usize, f: impl Fn(usize) -> F) -> (usize, usize, Option<E>)
where
    F: Future<Output = Result<(), E>>,
{
    let (mut tried, mut succeeded, mut batch) = (0, 0, 1);
    while tried < count {
        let size = batch.min(count - tried);
        let mut failure = None;
        for result in join_all((tried..tried + size).map(&f)).await {
            match result {
                Ok(()) => succeeded += 1,
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        tried += size;
        batch *= 2;
        if failure.is_some() {
            return (tried, succeeded, failure);
        }
    }
    (tried, succeeded, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn batches_double_until_one_fails() {
        let ok = slow_start(100, async |_| Ok::<_, ()>(())).await;
        assert_eq!(ok, (100, 100, None));
        // Batches of 1, 2, 4: the fifth call is in the third.
        let fails = slow_start(100, async |n| if n == 4 { Err("no") } else { Ok(()) }).await;
        assert_eq!(fails, (7, 6, Some("no")));
        assert_eq!(slow_start(0, async |_| Err("no")).await, (0, 0, None));
    }
}

//! Caches the outcome of token authentication for a short time (upstream: `authentication/token/cache`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::{AuthnError, Identity, Metrics, TokenAuthenticator};

/// The maximum number of tokens in each of the two generations.
const GENERATION: usize = 8192;

type Key = [u8; 32];
type Outcome = Result<Option<Identity>, AuthnError>;
/// An outcome and its expiration. The first request with a token computes it; concurrent requests wait for it.
type Cell = Arc<OnceCell<(Outcome, Instant)>>;

/// Caches the outcomes of another token authenticator. Concurrent requests with the same token share one call.
///
/// The cache keys are keyed hashes of the tokens. Each cache has its own secret hash key, so neither the stored keys
/// nor the lookup time reveals anything about tokens.
pub struct CachedTokens {
    tokens: Arc<dyn TokenAuthenticator>,
    success: Duration,
    failure: Duration,
    key: hmac::Key,
    cells: Mutex<Generations>,
    metrics: Option<Arc<Metrics>>,
}

/// New entries go to the young generation. When the young generation is full, it replaces the old one.
#[derive(Default)]
struct Generations {
    young: HashMap<Key, Cell>,
    old: HashMap<Key, Cell>,
}

impl CachedTokens {
    /// Caches users for the time `success` and unknown tokens for the time `failure`; zero disables caching. Errors are
    /// never cached, because they may be temporary.
    pub fn new(tokens: Arc<dyn TokenAuthenticator>, success: Duration, failure: Duration) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        Self { tokens, success, failure, key, cells: Mutex::default(), metrics: None }
    }

    /// Records metrics.
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    fn key(&self, token: &str, audiences: &[String]) -> Key {
        let mut context = hmac::Context::with_key(&self.key);
        for part in std::iter::once(token).chain(audiences.iter().map(String::as_str)) {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut key = Key::default();
        key.copy_from_slice(context.sign().as_ref());
        key
    }

    fn cell(&self, key: Key, now: Instant) -> Cell {
        let mut cells = self.cells.lock();
        if let Some(cell) = cells.find(&key)
            && cell.get().is_none_or(|(_, until)| now < *until)
        {
            return cell;
        }
        let cell = Cell::default();
        cells.insert(key, Arc::clone(&cell));
        cell
    }
}

impl Generations {
    fn find(&self, key: &Key) -> Option<Cell> {
        self.young.get(key).or_else(|| self.old.get(key)).cloned()
    }

    fn insert(&mut self, key: Key, cell: Cell) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, cell);
    }
}

#[async_trait]
impl TokenAuthenticator for CachedTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identity>, AuthnError> {
        let started = Instant::now();
        let cell = self.cell(self.key(token, audiences), started);
        let hit = cell.initialized();
        let metrics = self.metrics.as_ref();
        let waiting = metrics.filter(|_| !hit).map(|metrics| metrics.fetching("blocked"));
        let (outcome, _) = cell
            .get_or_init(async || {
                let _fetching = metrics.map(|metrics| metrics.fetching("in_flight"));
                let outcome = self.tokens.authenticate_token(token, audiences).await;
                let ttl = match outcome {
                    Ok(Some(_)) => self.success,
                    Ok(None) => self.failure,
                    Err(_) => Duration::ZERO,
                };
                (outcome, Instant::now() + ttl)
            })
            .await;
        drop(waiting);
        if let Some(metrics) = metrics {
            metrics.looked_up(hit, outcome, started.elapsed());
        }
        outcome.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::UserInfo;

    /// Accepts every token but `bad`, returns an error for `broken`, and counts calls.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    #[async_trait]
    impl TokenAuthenticator for Counting {
        async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Outcome {
            self.0.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            match token {
                "bad" => return Ok(None),
                "broken" => return Err(AuthnError::UnknownToken),
                _ => {}
            }
            let user = UserInfo { name: token.to_owned(), ..UserInfo::default() };
            Ok(Some(Identity::new(user).for_audiences(audiences.to_vec())))
        }
    }

    fn cache(success: Duration, failure: Duration) -> (Arc<Counting>, CachedTokens) {
        let counting = Arc::new(Counting::default());
        (counting.clone(), CachedTokens::new(counting, success, failure))
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn caches_users_by_token_and_audiences_until_expiration() {
        let (calls, cache) = cache(HOUR, Duration::ZERO);
        let one = ["a".to_owned()];
        let two = ["a".to_owned(), "b".to_owned()];
        for (token, audiences, count) in [
            ("x", &one[..], 1),
            ("x", &one, 1),
            ("y", &one, 2),
            ("x", &two, 3),
            ("x", &two, 3),
            ("xa", &[], 4),
        ] {
            let found = cache.authenticate_token(token, audiences).await.unwrap().unwrap();
            assert_eq!((found.user.name.as_str(), &*found.audiences), (token, audiences));
            assert_eq!(calls.0.load(Ordering::SeqCst), count);
        }
        for count in [5, 6] {
            assert_eq!(cache.authenticate_token("bad", &one).await, Ok(None));
            assert_eq!(calls.0.load(Ordering::SeqCst), count, "refusals are not cached");
        }
    }

    #[tokio::test]
    async fn caches_refusals_and_users_only_with_a_ttl() {
        let (calls, cache) = cache(Duration::ZERO, HOUR);
        for _ in 0..3 {
            assert_eq!(cache.authenticate_token("bad", &[]).await, Ok(None));
        }
        assert_eq!(calls.0.load(Ordering::SeqCst), 1);
        for (token, count) in [("x", 2), ("x", 3), ("broken", 4), ("broken", 5)] {
            let _ = cache.authenticate_token(token, &[]).await;
            assert_eq!(calls.0.load(Ordering::SeqCst), count);
        }
    }

    #[tokio::test]
    async fn concurrent_requests_share_one_call() {
        let (calls, cache) = cache(HOUR, Duration::ZERO);
        let (a, b) = tokio::join!(cache.authenticate_token("x", &[]), cache.authenticate_token("x", &[]));
        assert_eq!((a, calls.0.load(Ordering::SeqCst)), (b, 1));
    }

    #[tokio::test]
    async fn number_of_cached_tokens_is_bounded() {
        let (_, cache) = cache(HOUR, HOUR);
        for at in 0..3 * GENERATION {
            cache.authenticate_token(&at.to_string(), &[]).await.unwrap();
        }
        let cells = cache.cells.lock();
        assert!(cells.young.len() <= GENERATION && cells.old.len() <= GENERATION);
    }
}
